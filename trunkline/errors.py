"""Errors by who is at fault. A refusal by policy is a Decision, not an error.

- TrunklineError              never raised itself
    - ConfigError             the admin: names the key, the value and what is allowed
    - PeerError               a carrier, browser or device broke its protocol: end that leg
    - ProviderError           a speech or language provider failed; `retryable` says whether another try may help
    - StoreError              the database or the disk; records stay in the spool
        - SessionsAway        the session store; calls go on
    - MissingExtra            an optional package is absent; names the extra to install
    - MisuseError             our own bug: crash that call, never another
"""

from typing import Any


class TrunklineError(Exception):
    pass


class ConfigError(TrunklineError):
    """One line for the admin: which key, what it held, what is allowed."""

    def __init__(self, key: str, value: Any, allowed: str) -> None:
        super().__init__(key, value, allowed)
        self.key, self.value, self.allowed = key, value, allowed

    def __str__(self) -> str:
        return f"{self.key} = {self.value!r}: {self.allowed}"


class PeerError(TrunklineError):
    """The far end broke its protocol. `close_code` is the RFC 6455 7.4 code to end a WebSocket leg with."""

    def __init__(self, reason: str, close_code: int = 1002) -> None:
        super().__init__(reason, close_code)
        self.reason, self.close_code = reason, close_code

    def __str__(self) -> str:
        return self.reason


class ProviderError(TrunklineError):
    """A provider failed. `code`: timeout, unavailable, rate_limited, auth, bad_request, protocol or overloaded."""

    def __init__(self, provider: str, code: str, detail: str = "", *, retryable: bool) -> None:
        super().__init__(provider, code, detail)
        self.provider, self.code, self.detail, self.retryable = provider, code, detail, retryable

    def __str__(self) -> str:
        return f"{self.provider}: {self.code}" + (f" ({self.detail})" if self.detail else "")


class StoreError(TrunklineError):
    pass


class SessionsAway(StoreError):
    pass


class MissingExtra(TrunklineError):
    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)
        self.package, self.extra = package, extra

    def __str__(self) -> str:
        return f"{self.package} is not installed: pip install 'trunkline[{self.extra}]'"


class MisuseError(TrunklineError):
    pass
