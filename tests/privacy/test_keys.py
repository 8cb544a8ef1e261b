"""Key services: a command and a plug-in, with a stand-in; who is away, slow or wrong is told in one line."""

import io
import os
import stat
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from threading import Event

import pytest

from trunkline.errors import ConfigError, StoreError
from trunkline.privacy import keys as module
from trunkline.privacy.keys import EnvelopedKeys, open_keys
from trunkline.privacy.sealed import KeyRing, Sealer, unseal
from trunkline.privacy.texts import TextSeal

STAND_IN = """
    import base64, os, sys, time
    from pathlib import Path
    from trunkline.privacy.sealed import KeyRing
    here = Path(__file__).parent
    with (here / "asked").open("a") as log:
        log.write(sys.argv[1] + "\\n")
    mode = (here / "mode").read_text() if (here / "mode").exists() else ""
    if mode == "away":
        sys.exit("no route to the vault")
    if mode == "slow":
        time.sleep(30)
    ring, given = KeyRing({"vault": bytes(32)}), base64.b64decode(sys.stdin.read())
    if sys.argv[1] == "wrap":
        name, wrapped = ring.wrap(given)
        print("alias/trunkline" if mode != "nameless" else "", base64.b64encode(wrapped).decode())
    else:
        print(base64.b64encode(ring.unwrap("vault", given)).decode())
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    program = tmp_path / "kms"
    program.write_text(f"#!{sys.executable}\n{textwrap.dedent(STAND_IN)}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def asked(service: Path) -> list[str]:
    return (service.parent / "asked").read_text().split()


def test_a_command_wraps_one_key_and_everything_else_is_wrapped_here(service: Path) -> None:
    kms = f"command: {service}"
    keys = open_keys(kms, 20.0, {})
    assert keys is not None
    assert asked(service) == ["wrap", "unwrap"]
    file = io.BytesIO()
    Sealer(file, keys, {}).add(b"audio")
    seal = TextSeal(keys)
    sealed = [seal.seal(f"text {n}", "p") for n in range(100)]
    assert seal.key == "kms:alias/trunkline"
    assert asked(service) == ["wrap", "unwrap"]  # nobody was asked meanwhile

    later = open_keys(kms, 20.0, {})  # another process
    assert later is not None
    file.seek(0)
    assert list(unseal(file, later).chunks) == [b"audio"]
    reader = TextSeal(later)
    assert [reader.open(each, "p") for each in sealed] == [f"text {n}" for n in range(100)]
    assert asked(service) == ["wrap", "unwrap"] * 2 + ["unwrap"]


def test_older_keys_of_the_settings_still_open_what_they_sealed(service: Path) -> None:
    before = TextSeal(KeyRing({"2025": bytes(32)})).seal("before", "p")
    keys = open_keys(f"command: {service}", 20.0, {"2025": bytes(32)})
    assert keys is not None
    seal = TextSeal(keys)
    assert seal.open(before, "p") == "before"
    after = seal.seal("after", "p")
    back = open_keys(None, 20.0, {"2025": bytes(32)})
    assert back is not None
    with pytest.raises(StoreError, match=r"the key 'kms:alias/trunkline' is needed: privacy\.kms is not set"):
        TextSeal(back).open(after, "p")


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("away", "wrap ended with 1: no route to the vault"),
        ("slow", "no answer to wrap within 1 s"),
        ("nameless", "wrap answers a name"),
    ],
)
def test_a_service_that_does_not_answer_stops_the_start_and_says_why(service: Path, mode: str, why: str) -> None:
    (service.parent / "mode").write_text(mode)
    with pytest.raises(ConfigError, match=why) as caught:
        open_keys(f"command: {service}", 1.0 if mode == "slow" else 20.0, {})
    assert caught.value.key == "privacy.kms"


def test_a_service_that_goes_away_costs_only_what_others_sealed(service: Path) -> None:
    kms = f"command: {service}"
    first, second = open_keys(kms, 20.0, {}), open_keys(kms, 20.0, {})
    assert first is not None
    assert second is not None
    theirs, seal = TextSeal(first).seal("theirs", "p"), TextSeal(second)
    (service.parent / "mode").write_text("away")
    assert seal.open(seal.seal("ours", "p"), "p") == "ours"
    with pytest.raises(StoreError, match="no route to the vault"):
        seal.open(theirs, "p")


class Plugin:
    hang: Event | None = None

    def wrap(self, file_key: bytes) -> tuple[str, bytes]:
        if self.hang is not None:
            self.hang.wait(30)
        return KeyRing({"mine": bytes(32)}).wrap(file_key)

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        return KeyRing({"mine": bytes(32)}).unwrap(name, wrapped)


class Broken(Plugin):
    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        return os.urandom(32)


def installed(monkeypatch: pytest.MonkeyPatch, *factories: Callable[[], object]) -> None:
    names = [factory.__name__ for factory in factories]
    monkeypatch.setattr(
        module,
        "entry_points",
        lambda group: [EntryPoint(name.lower(), f"{__name__}:{name}", group) for name in names],
    )


def test_a_plug_in_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, Plugin, Broken)
    keys = open_keys("plugin", 5.0, {})
    assert keys is not None
    name, wrapped = keys.wrap(bytes(32))
    assert (name, keys.unwrap(name, wrapped)) == ("kms:mine", bytes(32))
    with pytest.raises(ConfigError, match="what mine wraps it does not unwrap again"):
        open_keys("broken", 5.0, {})
    with pytest.raises(ConfigError, match=r"a plug-in of trunkline\.keys \(broken, plugin\)"):
        open_keys("vault", 5.0, {})


def test_a_plug_in_that_hangs_has_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = Plugin()
    hanging.hang = Event()
    with pytest.raises(StoreError, match="no answer within"):
        EnvelopedKeys(hanging, -0.99)
    hanging.hang.set()


def test_an_answer_that_is_no_base64_is_told(service: Path) -> None:
    service.write_text(f"#!{sys.executable}\nprint('alias/x', '!!')\n")
    with pytest.raises(ConfigError, match="not base64"):
        open_keys(f"command: {service}", 20.0, {})
