"""What an agent's file says of a remote port: where its servers are, and how long they are waited for."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from trunkline.agents.options import THIRD_PARTY
from trunkline.agents.script.keys import Key, Keys, fault, nearest
from trunkline.errors import ConfigError

MAX_TARGETS = 64

WHERE: Keys = {
    "targets": Key(
        "list", "The servers, each `host:port` or `unix:/path`; a call stays on one of them.", required=True
    ),
    "tls": Key("flag", "Whether the servers are spoken to over TLS.", False),
    "tls_ca": Key("text", "A PEM file: whose certificates are trusted. Without it, the system's.", ""),
    "tls_cert": Key("text", "A PEM file: the certificate we show, where the servers want one.", ""),
    "tls_key": Key("text", "A PEM file: its key.", ""),
    "plaintext": Key("flag", "Speak to servers on other machines without TLS.", False),
    "third_party": THIRD_PARTY,
}
FIRST_MS = Key("whole", "The longest wait for the beginning of an answer.", 3000, low=50, high=60000)
BETWEEN_MS = Key("whole", "The longest pause within it.", 2000, low=50, high=60000)


@dataclass(frozen=True, slots=True)
class Options:
    targets: tuple[str, ...]
    tls: bool
    tls_ca: str
    tls_cert: str
    tls_key: str
    plaintext: bool
    deadlines_ms: Mapping[str, int]
    said_third_party: bool | None = None

    @property
    def third_party(self) -> bool:
        """Whether who holds the servers is another, as far as the file tells."""
        return self.is_away if self.said_third_party is None else self.said_third_party

    @property
    def is_away(self) -> bool:
        """Whether any of the servers is on another machine."""
        return not all(is_here(target) for target in self.targets)


def read_options(options: Mapping[str, Any], deadlines: Keys) -> Options:
    """Raises ConfigError."""
    known = {**WHERE, **deadlines}
    held = {name: key.default for name, key in known.items()}
    for name, value in options.items():
        key = known.get(name)
        if key is None:
            raise ConfigError(name, value, f"unknown key{nearest(name, known)}")
        if wrong := fault(key, value):
            raise ConfigError(name, value, wrong[1])
        held[name] = value
    targets = tuple(held["targets"] or ())
    if not 1 <= len(set(targets)) == len(targets) <= MAX_TARGETS:
        allowed = f"""servers, 1 to {MAX_TARGETS} different ones: ["127.0.0.1:50051"]"""
        raise ConfigError("targets", list(targets), allowed)
    for target in targets:
        if not _is_target(target):
            raise ConfigError("targets", target, "host:port, such as gpu1.example.com:50051, or unix:/path")
    where = Options(
        targets,
        held["tls"],
        held["tls_ca"],
        held["tls_cert"],
        held["tls_key"],
        held["plaintext"],
        {name: held[name] for name in deadlines},
        held["third_party"],
    )
    _check_tls(where)
    return where


def _check_tls(options: Options) -> None:
    for name in ("tls_ca", "tls_cert", "tls_key"):
        path = getattr(options, name)
        if path and not options.tls:
            raise ConfigError(name, path, "is of use only with tls = true")
        if path and not Path(path).is_file():
            raise ConfigError(name, path, "a PEM file")
    if bool(options.tls_cert) != bool(options.tls_key):
        raise ConfigError("tls_cert", options.tls_cert, "tls_cert and tls_key, or neither")
    if options.is_away and not options.tls and not options.plaintext:
        away = next(target for target in options.targets if not is_here(target))
        raise ConfigError(
            "targets", away, "on another machine: set tls = true (or plaintext = true in a network of your own)"
        )


def _is_target(target: str) -> bool:
    if target.startswith("unix:/") and len(target) > len("unix:/") and not any(c.isspace() for c in target):
        return True
    host, separator, port = target.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    well = bool(host) and "/" not in host and not any(c.isspace() for c in target) and (bracketed or ":" not in host)
    return well and bool(separator) and port.isascii() and port.isdecimal() and 0 < int(port) < 65536


def is_here(target: str) -> bool:
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
