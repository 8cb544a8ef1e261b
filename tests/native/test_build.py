"""native/pjsua2/builder: what is refused, what is taken first, and what makes a wheel another wheel."""

import hashlib
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

NATIVE = Path(__file__).parents[2] / "native" / "pjsua2"


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(NATIVE))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def module(name: str) -> Any:
    return importlib.import_module(f"builder.{name}")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Any:
    """builder.source, whose pins are of three short files."""
    found = module("source")
    pins = found.Pins(
        found.Pin("https://pjsip.test/2.17.tar.gz", sha256(b"release")),
        found.Pin("pool/main/a/asterisk/pj.tar.xz", sha256(b"debian")),
        found.Pin("pool/main/libs/libsrtp2/srtp.tar.gz", sha256(b"srtp")),
    )
    monkeypatch.setattr(found, "PINS", pins)
    return found


class Net:
    """What can be fetched, and what was asked for."""

    def __init__(self, **files: bytes) -> None:
        self.files = {name.replace("__", "."): data for name, data in files.items()}
        self.asked: list[str] = []

    def __call__(self, pin: Any, to: Path) -> None:
        self.asked.append(pin.name)
        for name, data in self.files.items():
            if pin.name.startswith(name):
                to.write_bytes(data)
                return
        raise OSError("unreachable")


def test_the_pinned_sources_are_read_with_their_places() -> None:
    pins = module("source").PINS
    assert pins.release.where.startswith("https://github.com/pjsip/")
    assert not pins.release.in_debian
    assert pins.debian.in_debian
    assert pins.srtp.name == "libsrtp2_2.5.0.orig.tar.gz"
    assert all(len(pin.sha256) == 64 for pin in pins.all())


def test_the_release_is_asked_for_first_and_debian_after_it(source: Any, tmp_path: Path) -> None:
    net = Net(pj=b"debian")
    found = source.find(None, tmp_path, net)
    assert net.asked == ["2.17.tar.gz", "pj.tar.xz"]
    assert found.path.read_bytes() == b"debian"
    assert found.identity == sha256(b"debian")


def test_an_earlier_download_of_either_spares_the_network(source: Any, tmp_path: Path) -> None:
    (tmp_path / "pj.tar.xz").write_bytes(b"debian")
    net = Net()
    assert source.find(None, tmp_path, net).path == tmp_path / "pj.tar.xz"
    assert net.asked == []


def test_a_download_of_another_sum_is_refused_and_not_kept(source: Any, tmp_path: Path) -> None:
    with pytest.raises(module("steps").BuildError, match="is refused: its sha256 is"):
        source.download(source.PINS.release, tmp_path, Net(**{"2__17": b"tampered"}))
    assert list(tmp_path.iterdir()) == []


def test_a_kept_download_that_changed_is_fetched_again(source: Any, tmp_path: Path) -> None:
    (tmp_path / "srtp.tar.gz").write_bytes(b"rotten")
    assert source.find_srtp(None, tmp_path, Net(srtp=b"srtp")).read_bytes() == b"srtp"


def test_when_nothing_can_be_had_each_attempt_and_the_way_out_are_named(source: Any, tmp_path: Path) -> None:
    with pytest.raises(module("steps").BuildError) as error:
        source.find(None, tmp_path, Net())
    assert "2.17.tar.gz could not be downloaded" in str(error.value)
    assert "pj.tar.xz could not be downloaded" in str(error.value)
    assert "make pjsip PJSIP_SOURCE=" in str(error.value)


def test_another_sum_of_the_release_can_be_given(source: Any, tmp_path: Path) -> None:
    found = source.find(sha256(b"rebuilt"), tmp_path, Net(**{"2__17": b"rebuilt"}))
    assert found.path.read_bytes() == b"rebuilt"


def test_in_a_folder_a_tarball_is_known_by_its_sum_and_not_its_name(source: Any, tmp_path: Path) -> None:
    (tmp_path / "any-name.tar.xz").write_bytes(b"debian")
    (tmp_path / "other.tar.gz").write_bytes(b"srtp")
    found = source.from_path(tmp_path)
    assert found.path.name == "any-name.tar.xz"
    assert source.find_srtp(found.near, tmp_path / "downloads", Net()).name == "other.tar.gz"


def test_a_folder_whose_tarball_only_goes_by_the_name_is_refused(source: Any, tmp_path: Path) -> None:
    (tmp_path / "2.17.tar.gz").write_bytes(b"tampered")
    with pytest.raises(module("steps").BuildError, match="is refused"):
        source.from_path(tmp_path)


def test_a_tarball_named_by_hand_is_taken_and_its_sum_printed(
    source: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.tar.gz").write_bytes(b"mine")
    assert source.from_path(tmp_path / "mine.tar.gz").identity == sha256(b"mine")
    assert sha256(b"mine") in capsys.readouterr().err


def test_a_sum_given_by_hand_must_be_the_files(source: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.tar.gz").write_bytes(b"mine")
    (tmp_path / "pinned.tar.xz").write_bytes(b"debian")
    assert source.from_path(tmp_path / "mine.tar.gz", sha256(b"mine")).identity == sha256(b"mine")
    for given in (tmp_path / "mine.tar.gz", tmp_path / "pinned.tar.xz", tmp_path):
        with pytest.raises(module("steps").BuildError):
            source.from_path(given, sha256(b"else"))


def test_an_unpacked_tree_is_itself_whatever_a_build_left_in_it(source: Any, tmp_path: Path) -> None:
    (tmp_path / "version.mak").write_text("export PJ_VERSION_MAJOR  := 2\n")
    before = source.from_path(tmp_path)
    (tmp_path / "pj.o").write_bytes(b"object")
    assert before.is_tree
    assert source.from_path(tmp_path).identity == before.identity
    (tmp_path / "pj.c").write_text("int x;")
    assert source.from_path(tmp_path).identity != before.identity


def test_only_debians_own_archives_are_asked_and_the_public_one_last(source: Any) -> None:
    sites = "http://mirror.test/debian/\nhttp://mirror.test/debian-security/\nhttp://other.test/x\n"
    assert source.mirrors(sites) == ["http://mirror.test/debian", "http://deb.debian.org/debian"]
    assert source.mirrors("") == ["http://deb.debian.org/debian"]


@pytest.fixture
def native(tmp_path: Path) -> Path:
    copy = tmp_path / "native"
    shutil.copytree(NATIVE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.mark.parametrize("name", ["config_site.h", "builder/tree.py", "tools.lock", "src/trunkline.i", "src/new.cpp"])
def test_a_change_in_what_it_is_built_from_makes_another_wheel(native: Path, name: str) -> None:
    keys = module("keys")
    key, version = keys.wheel_key("cp311", "x86_64", native), keys.wheel_version(native)
    with (native / name).open("a") as file:
        file.write("// more\n")
    assert keys.wheel_key("cp311", "x86_64", native) != key
    assert keys.wheel_version(native) != version
    assert version.startswith("2.17+trunkline.")


def test_python_and_machine_make_another_wheel_and_the_readme_does_not(native: Path) -> None:
    keys = module("keys")
    key = keys.wheel_key("cp311", "x86_64", native)
    assert len({key, keys.wheel_key("cp312", "x86_64", native), keys.wheel_key("cp311", "aarch64", native)}) == 3
    (native / "README.md").write_text("other words")
    (native / "builder" / "__pycache__").mkdir()
    (native / "builder" / "__pycache__" / "keys.pyc").write_bytes(b"x")
    assert keys.wheel_key("cp311", "x86_64", native) == key


def test_parts_of_a_digest_do_not_run_into_each_other() -> None:
    digest = module("keys").digest
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a") == digest(b"a")


VERSION_MAK = "export PJ_VERSION_MAJOR  := 2\nexport PJ_VERSION_MINOR  := {}\nexport PJ_VERSION_REV    :={}\nexport PJ_VERSION_SUFFIX :={}\n"  # noqa: E501


@pytest.mark.parametrize(
    ("minor", "rev", "suffix", "version"),
    [("17", "", "", "2.17"), ("17", " 1", "", "2.17.1"), ("18", "", " -dev", "2.18-dev")],
)
def test_the_version_is_read_from_the_source(tmp_path: Path, minor: str, rev: str, suffix: str, version: str) -> None:
    (tmp_path / "version.mak").write_text(VERSION_MAK.format(minor, rev, suffix))
    assert module("tree").version_of(tmp_path) == version


def test_a_tree_of_another_version_is_refused(source: Any, tmp_path: Path) -> None:
    tree = module("tree")
    (tmp_path / "pj").mkdir()
    (tmp_path / "pj" / "version.mak").write_text(VERSION_MAK.format("16", "", ""))
    with pytest.raises(module("steps").BuildError, match=r"holds PJSIP 2\.16; Trunkline is made for 2\.17"):
        tree.unpack(source.from_path(tmp_path / "pj"), tmp_path / "to", tmp_path / "log")
    assert not (tmp_path / "to").exists()


def test_a_patch_that_does_not_fit_stops_the_build(tmp_path: Path) -> None:
    tree, wheel, steps = module("tree"), module("wheel"), module("steps")
    file = tmp_path / "pjsua_media.c"
    file.write_text("enum { RTP_RETRY = 100\n};\n")
    tree.replace_once(file, *tree.RTP_RETRY)
    assert "RTP_RETRY = 5000\n" in file.read_text()
    tree.replace_once(file, *tree.RTP_RETRY)  # a tree that was patched before
    file.write_text("enum { RTP_RETRY = 200\n};\n")
    with pytest.raises(steps.BuildError, match="0 times in it"):
        tree.replace_once(file, *tree.RTP_RETRY)
    with pytest.raises(steps.BuildError, match=r"pjsua2\.i is not the one we know"):
        wheel.patched("%module pjsua2\n", with_fragment=True)


def test_the_interface_keeps_the_gil_where_pythons_api_is_used() -> None:
    wheel = module("wheel")
    text = "  %extend std::vector<unsigned char> {\n    f() {\n      PyBuffer_Release(&view);\n    }\n  }\n#endif\n"
    patched = wheel.patched(text, with_fragment=True)
    assert patched.index("%nothread;") < patched.index("%extend") < patched.index("%thread;") < patched.index("#endif")
    assert patched.rstrip().endswith('%include "trunkline.i"\n#endif')
    assert "trunkline.i" not in wheel.patched(text, with_fragment=False)


@pytest.mark.parametrize("name", ["PJ_HAS_SSL_SOCK", "PJMEDIA_HAS_OPUS_CODEC"])
def test_what_configure_leaves_out_in_silence_stops_the_build(tmp_path: Path, name: str) -> None:
    tree = module("tree")
    for file, (define, _) in tree.NEEDED.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"#define {define} {0 if define == name else 1}\n")
    with pytest.raises(module("steps").BuildError, match=f"without {name}: lib.*-dev is not installed"):
        tree.complain_of_missing(tmp_path)


def test_only_the_last_used_are_kept(tmp_path: Path) -> None:
    keep_newest = module("cache").keep_newest
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    used = {"a": 3.0, "b": 1.0, "c": 2.0}
    keep_newest(tmp_path.iterdir(), 2, lambda path: used[path.name])
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}


def test_a_cached_wheel_is_taken_unless_another_source_is_named(tmp_path: Path) -> None:
    cache = module("cache")
    assert cache.cached(tmp_path) is None
    folder = cache.wheel_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "pjsua2-2.17.whl").touch()
    (folder / "source").write_text("this")
    assert cache.cached(tmp_path) == cache.cached(tmp_path, "this") == folder / "pjsua2-2.17.whl"
    assert cache.cached(tmp_path, "that") is None


def test_the_cache_lies_where_the_person_says(tmp_path: Path) -> None:
    cache_folder = module("cache").cache_folder
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "trunkline" / "pjsua2"
    assert cache_folder({}) == Path.home() / ".cache" / "trunkline" / "pjsua2"


class Dist:
    def __init__(self, version: str, origin: dict[str, Any]) -> None:
        self.version, self.origin = version, origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return json.dumps(self.origin) if self.origin else None


@pytest.mark.parametrize(
    ("have", "done"),
    [
        ({}, False),
        ({"pjsua2": "same"}, True),
        ({"pjsua2": "other"}, False),
        ({"pjsua2": ""}, False),
        ({"pjsua2": "same", "pjsua2-python": ""}, False),
    ],
)
def test_installed_means_this_very_wheel_with_nothing_to_hide_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, have: dict[str, str], done: bool
) -> None:
    install = module("install")
    wheel = tmp_path / "pjsua2.whl"
    wheel.write_bytes(b"same")

    def distribution(name: str) -> Dist:
        if name not in have:
            raise install.PackageNotFoundError(name)
        data = have[name]
        return Dist("2.17", {"archive_info": {"hashes": {"sha256": sha256(data.encode())}}} if data else {})

    monkeypatch.setattr(install, "distribution", distribution)
    assert install.is_installed(wheel) is done
