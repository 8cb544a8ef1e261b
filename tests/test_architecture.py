"""DESIGN.md's rules of who may import whom, and who may touch time, the environment and heavy packages."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "trunkline"
FLOOR_FILES = {
    "types",
    "addresses",
    "fetching",
    "errors",
    "clock",
    "plans",
    "ports",
    "live",
    "hooks",
    "callbacks",
    "metrics",
    "telemetry",
    "logs",
    "redislink",
    "owned",
    "identity",
}
FLOOR = {*FLOOR_FILES, "settings", "privacy"}
ENTRY_POINTS = {
    "app",
    "ascode",
    "people",
    "auditing",
    "calls",
    "cli",
    "doctor",
    "keeping",
    "recordings",
    "training",
    "legal",
    "monies",
    "costs",
    "numbering",
    "routed",
}
MAY_IMPORT = {
    "agents": {"media"},
    "compliance": set[str](),
    "numbers": set[str](),
    "media": set[str](),
    "store": set[str](),
    "gateway": {"agents", "compliance", "numbers", "media"},
    "device": {"agents", "media"},
}
HEAVY = {
    "aiortc",
    "argon2",
    "asyncpg",
    "authlib",
    "deepgram",
    "elevenlabs",
    "espeakng_loader",
    "joserfc",
    "livekit",
    "onnxruntime",
    "openai",
    "opentelemetry.exporter",
    "opentelemetry.sdk",
    "pocketsphinx",
    "pyarrow",
    "redis",
    "sherpa_onnx",
    "twilio.request_validator",
    "twilio.rest",
}
CLOCKS = {"time.time", "time.monotonic", "time.perf_counter", "time.time_ns", "time.monotonic_ns"}
CLOCKS |= {f"datetime.{name}" for name in ("now", "utcnow", "today")}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module it imports, wherever in the file; `from a import b` gives a and a.b."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    own = {name.split(".")[1] for name in imports(path) if name.startswith("trunkline.")}
    return own - {"__version__"}


def is_a(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_the_rooms_are_those_of_the_design() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert rooms == {*MAY_IMPORT, "settings", "privacy", "testing"}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert files == FLOOR_FILES | ENTRY_POINTS


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_the_floor_and_what_the_design_lets_it(room: str) -> None:
    allowed = FLOOR | {room} | MAY_IMPORT[room]
    wrong = {
        str(path.relative_to(ROOT)): extra
        for path in (PACKAGE / room).rglob("*.py")
        if (extra := rooms_imported(path) - allowed)
    }
    assert wrong == {}


def test_the_floor_imports_only_the_floor() -> None:
    floor = [path for path in sources() if room_of(path) in FLOOR]
    wrong = {str(path.relative_to(ROOT)): extra for path in floor if (extra := rooms_imported(path) - FLOOR)}
    assert wrong == {}


def test_nothing_but_the_command_line_imports_the_testing_kit() -> None:
    """Entry points name its stand-in providers; that is metadata, not an import."""
    users = {room_of(path) for path in sources() if "testing" in rooms_imported(path)}
    assert users <= {"testing", "cli"}


def test_only_the_settings_read_the_environment() -> None:
    """Handing a child process a changed copy of it is reading it, too."""
    readers = {
        str(path.relative_to(PACKAGE))
        for path in sources()
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"))
        or (isinstance(node, ast.alias) and node.name in ("environ", "getenv"))
    }
    assert readers == {"settings/environment.py"}


def test_only_the_clock_reads_time() -> None:
    def is_clock(node: ast.AST) -> bool:
        if not isinstance(node, ast.Attribute):
            return False
        owner = node.value
        name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
        return f"{name}.{node.attr}" in CLOCKS

    readers = {
        str(path.relative_to(PACKAGE))
        for path in sources()
        if any(map(is_clock, ast.walk(tree(path)))) or any(name in CLOCKS for name in imports(path))
    }
    assert readers == {"clock.py"}


@pytest.mark.parametrize("package", sorted(HEAVY))
def test_a_heavy_package_is_imported_by_at_most_one_file(package: str) -> None:
    """Of the gateway: the testing kit stands on the other side of the wire."""
    users = [
        str(path.relative_to(PACKAGE))
        for path in sources()
        if room_of(path) != "testing" and any(is_a(name, package) for name in imports(path))
    ]
    assert len(users) <= 1, users


def test_grpc_stays_behind_the_remote_ports() -> None:
    """Its generated code imports it as well: so it is one folder, not one file."""
    users = {
        str(path.relative_to(PACKAGE).parent)
        for path in sources()
        if any(is_a(name, "grpc") or is_a(name, "google.protobuf") for name in imports(path))
    }
    assert users == {"agents/remote"}


def test_pjsua2_stays_below_the_sip_desk() -> None:
    """Its calls, accounts and ports are classes to derive from, a file each: so it is one folder, too."""
    users = {str(path.relative_to(PACKAGE).parent) for path in sources() if "pjsua2" in imports(path)}
    assert users == {"gateway/sip/pjsip"}


def test_importing_trunkline_loads_nothing_heavy_and_starts_nothing() -> None:
    program = (
        "import sys, threading, trunkline, trunkline.ports, trunkline.cli\n"
        f"heavy = {sorted(HEAVY)!r} + ['numpy', 'sqlalchemy', 'uvicorn', 'grpc', 'google.protobuf', 'pjsua2']\n"
        "print([name for name in heavy if name in sys.modules], threading.active_count())"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.stdout.strip(), result.stderr) == ("[] 1", "")


def test_onnxruntime_reports_home_to_nobody(tmp_path: Path) -> None:
    """Its import would leave a device id and a database of events for Microsoft in the home folder."""
    program = "from trunkline.media.vad import SileroBatch; SileroBatch(1)"
    environment = {"HOME": str(tmp_path), "PATH": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == []


def test_import_numbers_from_the_root_is_the_standard_library() -> None:
    """Why the rooms live in one package: a top-level `numbers` would break numpy, decimal and fractions."""
    program = "import numbers, sysconfig; print(numbers.__file__.startswith(sysconfig.get_path('stdlib')))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "True", result.stderr


def test_every_folder_of_the_package_is_a_package() -> None:
    folders = {path.parent for path in sources()}
    assert [str(f) for f in folders if not (f / "__init__.py").exists()] == []


ASKS = {"ask", "may_call", "may_come", "may_fall_back"}
"""What leads to decide()."""
DIALS = {"dial", "put_through", "put_through_to", "makeCall", "make_call", "create"}
WAYS_OUT = {
    # every function that begins a call, and what asks before it; docs/compliance.md shows the ways
    ("gateway/api/calls.py", "place"): "Switchboard.dial asks",
    ("gateway/api/calls.py", "dial"): "the route",
    ("gateway/api/client.py", "dial"): "the command line, by the API",
    ("gateway/api/idempotency.py", "_place"): "the same route",
    ("gateway/callingback.py", "_place"): "_dial, of the same file",
    ("gateway/callingback.py", "_dial"): "Switchboard.may_dial, and Switchboard.dial again",
    ("gateway/handover.py", "_dial_over"): "_dial",
    ("gateway/handover.py", "_refer"): "_refer",
    ("gateway/handover.py", "_refer_replaces"): "joins two calls that are there",
    ("gateway/handover.py", "_perform"): "the machine's HangUpCaller, and Dial to _dial",
    ("gateway/linecall.py", "deserted"): "a state, not a call",
    ("gateway/linecall.py", "_caller_over"): "a state, not a call",
    ("gateway/party.py", "_ring"): "invite",
    ("gateway/placing.py", "_placed"): "_placed",
    ("gateway/placing.py", "dial"): "Switchboard.dial",
    ("gateway/referred.py", "_ring"): "begin",
    ("gateway/sip/desk.py", "dial"): "the dialler itself",
    ("gateway/sip/pjsip/stack.py", "_open_account"): "no call",
    ("gateway/sip/pjsip/stack.py", "perform"): "the stack, for the dialler",
    ("gateway/twilio/dialler.py", "_place"): "the dialler itself",
    ("gateway/switchboard.py", "dial"): "dial",
    ("gateway/twilio/dialler.py", "_create"): "the dialler itself",
    ("gateway/twilio/webhooks.py", "continue_"): "LineCall._ask_dial, when the transfer was allowed",
    ("gateway/twilio/webhooks.py", "_elsewhere"): "Switchboard.way_out and _answered_elsewhere, by LineCall.ask",
    ("gateway/twilio/webhooks.py", "fallback"): "fallback",
}
ASKED_THERE = {
    ("gateway/handover.py", "_dial"),
    ("gateway/handover.py", "_refer"),
    ("gateway/linecall.py", "_ask_dial"),
    ("gateway/linecall.py", "_ask_for"),
    ("gateway/party.py", "invite"),
    ("gateway/placing.py", "_placed"),
    ("gateway/referred.py", "begin"),
    ("gateway/switchboard.py", "dial"),
    ("gateway/twilio/webhooks.py", "fallback"),
}


def functions(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Each with the names of the methods that it calls itself, functions within it left out."""

    def within(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.Call):
                called = child.func
                if isinstance(called, ast.Attribute):
                    yield called.attr.removeprefix("_")
                elif isinstance(called, ast.Name) and called.id == "partial":
                    yield from (arg.attr for arg in child.args if isinstance(arg, ast.Attribute))
            yield from within(child)

    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, set(within(node))


def in_gateway() -> Iterator[tuple[str, str, set[str]]]:
    for path in sources():
        if room_of(path) == "gateway":
            for name, calls in functions(path):
                yield path.relative_to(PACKAGE).as_posix(), name, calls


def test_whatever_dials_is_listed_with_who_asks_before_it() -> None:
    dial = {(file, name) for file, name, calls in in_gateway() if calls & DIALS}
    assert dial - set(WAYS_OUT) == set(), "ask decide() before it, and list it here and in compliance.md"


def test_whoever_is_to_ask_does() -> None:
    ask = {(file, name) for file, name, calls in in_gateway() if calls & ASKS}
    assert ASKED_THERE - ask == set()
