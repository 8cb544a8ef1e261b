"""Scripts that are not the operator's: an admin of a tenant writes them, they are read out of the database, and run
beside those of others on a machine that is neither's.

Such a script may use the providers of this gateway and their accounts, since who runs the gateway pays for them. It may
not name a file, a folder, a secret or a server, but for those that the operator lists ([shared] of the settings): a
server of its choice would be sent the operator's key, a folder or a private address is no business of a tenant's, and
that a server is no third party is for the operator to say.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trunkline.agents.definition import NO_DETECTOR
from trunkline.agents.script.keys import Report
from trunkline.agents.script.lines import Path

Reserved = Literal["server", "servers", "folder", "file", "of_server"]
"""`of_server`: said of a server, and as good as the server is known."""

_SERVER: Mapping[str, Reserved] = {"base_url": "server", "url": "server", "third_party": "of_server"}
_REMOTE: Mapping[str, Reserved] = {
    "targets": "servers",
    "tls": "of_server",
    "plaintext": "of_server",
    "third_party": "of_server",
    "tls_ca": "file",
    "tls_cert": "file",
    "tls_key": "file",
}
_FOLDER: Mapping[str, Reserved] = {"model_dir": "folder"}
_NONE: Mapping[str, Reserved] = {}

PROVIDERS: Mapping[str, Mapping[str, Reserved]] = {
    "stt.pocketsphinx": _NONE,
    "stt.deepgram": _SERVER,
    "stt.remote": _REMOTE,
    "stt.sherpa": _FOLDER,
    "stt.standin": _NONE,
    "llm.script": _NONE,
    "llm.openai": _SERVER,
    "llm.remote": _REMOTE,
    "llm.standin": _NONE,
    "realtime.openai": _SERVER,
    "tts.espeak": _NONE,
    "tts.elevenlabs": _SERVER,
    "tts.openai": _SERVER,
    "tts.deepgram": _SERVER,
    "tts.remote": _REMOTE,
    "tts.sherpa": _FOLDER,
    "tts.standin": _NONE,
    "turn.rules": _NONE,
    "turn.remote": _REMOTE,
    f"turn.{NO_DETECTOR}": _NONE,
}
"""Whose options we know, and which of them name what is not the script's. A provider of another package is none."""

_KEY = re.compile(r"\{key:([A-Za-z0-9_]+)\}")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the operator lets such scripts name. [shared] of the settings."""

    secrets: frozenset[str] = frozenset()
    """Of `{key:NAME}` in the headers of an `http` tool."""
    servers: frozenset[str] = frozenset()
    """As a script writes them: `base_url`, `url`, each of `targets`."""
    folders: frozenset[str] = frozenset()
    """Of models."""
    providers: frozenset[str] = frozenset()
    """Of other packages, with all their options: `tts.NAME`."""
    private_addresses: bool = False
    """Whether their `http` tools may call loopback and private networks."""

    def keys(self, keys: Mapping[str, str]) -> dict[str, str]:
        """Of the settings' secrets those that their `http` tools may send."""
        return {name: key for name, key in keys.items() if name in self.secrets}

    def faults(self, kind: str, provider: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Which option of a provider is not the script's to give, and why; `provider`: the provider itself."""
        name = f"{kind}.{provider}"
        if name in self.providers:
            return
        reserved = PROVIDERS.get(name)
        if reserved is None:
            yield "provider", f"{provider} is not for AI agents of the desk: the operator may list {name} ({_WHERE})"
            return
        servers = [
            value for key, is_a in reserved.items() if is_a in ("server", "servers") for value in _of(options, key)
        ]
        known = bool(servers) and all(server in self.servers for server in servers)
        for key, is_a in reserved.items():
            if key not in options:
                continue
            if is_a in ("server", "servers"):
                for server in _of(options, key):
                    if server not in self.servers:
                        yield key, f"{server!r} is no server that AI agents of the desk may name: {_list('servers')}"
                        break
            elif is_a == "folder":
                if options[key] not in self.folders:
                    yield key, f"{options[key]!r} is no folder that AI agents of the desk may name: {_list('folders')}"
            elif is_a == "file":
                yield key, "AI agents of the desk name no files of this machine: leave it out"
            elif not known:
                yield key, f"is for the operator to say, of a server that is listed: {_list('servers')}"


_WHERE = "shared.providers in the settings"


def _list(name: str) -> str:
    return f"the operator may list it (shared.{name} in the settings)"


def _of(options: Mapping[str, Any], key: str) -> Sequence[str]:
    value = options.get(key)
    found = value if isinstance(value, list | tuple) else () if value is None else (value,)
    return [str(each) for each in found]


def check_headers(raw: Mapping[str, Any], shared: Shared, report: Report) -> None:
    """Of the file as TOML has it: its `http` tools, in each language."""
    _tools(raw.get("tools"), ("tools",), shared, report)
    languages = raw.get("languages")
    for tag, table in languages.items() if isinstance(languages, Mapping) else ():
        if isinstance(table, Mapping):
            _tools(table.get("tools"), ("languages", tag, "tools"), shared, report)


def _tools(tools: Any, path: Path, shared: Shared, report: Report) -> None:
    for name, tool in tools.items() if isinstance(tools, Mapping) else ():
        headers = tool.get("headers") if isinstance(tool, Mapping) else None
        for header, value in headers.items() if isinstance(headers, Mapping) else ():
            for secret in _KEY.findall(value) if isinstance(value, str) else ():
                if secret not in shared.secrets:
                    wrong = f"{secret!r} is no secret that AI agents of the desk may send: {_list('keys')}"
                    report((*path, name, "headers", header), wrong, "error")
