"""PJSIP compiled: static libraries and headers in a folder of the cache, which every later wheel builds on."""

import os
import re
import shutil
from pathlib import Path

from builder.cache import keep_newest
from builder.keys import NATIVE, PJSIP, digest
from builder.source import LEFT_OVER, Source, find_srtp
from builder.steps import BuildError, output, run, step

FLAGS = "-O2 -g0 -fPIC -DNDEBUG"
CXX_FLAGS = f"{FLAGS} -std=c++17"
LEFT_OUT = (
    "bcg729 ffmpeg g7221-codec gsm-codec ilbc-codec libuuid libwebrtc libyuv lyra opencore-amr openh264 sdl silk sound "
    "speex-aec speex-codec upnp v4l2 video vpx"
)
CONFIGURE = ["--enable-epoll", "--enable-speex-resample", *(f"--disable-{part}" for part in LEFT_OUT.split())]
# What configure leaves out in silence when its package is missing, and that package on Debian.
NEEDED = {
    "pjlib/include/pj/compat/os_auto.h": ("PJ_HAS_SSL_SOCK", "libssl-dev"),
    "pjmedia/include/pjmedia-codec/config_auto.h": ("PJMEDIA_HAS_OPUS_CODEC", "libopus-dev"),
}
# Trunks share one range of ports, and PJSIP gives up after this many tries to find a free pair in it.
RTP_RETRY = ("RTP_RETRY = 100\n", "RTP_RETRY = 5000\n")
# A re-INVITE that offers nothing we know is not acceptable here, RFC 3261 14.2; it is no failure of ours.
NO_COMMON_CODEC = ("(dlg, rdata, 500, &reason,", "(dlg, rdata, 488, &reason,")
KEPT_TREES = 2  # 80 MB each


def tree_key(source: Source) -> str:
    """Everything the libraries depend on; our own C++ is not among it."""
    ours = [path.read_bytes() for path in (NATIVE / "config_site.h", NATIVE / "sources.sha256", Path(__file__))]
    return digest(source.identity, output(["cc", "--version"]), *ours)[:16]


def compiled(source: Source, cache: Path) -> Path:
    """The folder of PJSIP compiled from this source; compiles it when it is not in the cache."""
    tree = cache / "trees" / tree_key(source)
    done = tree / ".compiled"
    if done.is_file():
        done.touch()
        return tree
    log = cache / "logs" / f"tree-{tree.name}.log"
    log.unlink(missing_ok=True)
    shutil.rmtree(tree, ignore_errors=True)
    with step("unpacking PJSIP"):
        unpack(source, tree, log)
    if not (tree / "third_party/srtp/include").is_dir():
        add_srtp(tree, find_srtp(source.near, cache / "downloads"), log)
    patch(tree)
    env = {**os.environ, "CFLAGS": FLAGS, "CXXFLAGS": CXX_FLAGS, "LC_ALL": "C"}
    env.pop("MAKEFLAGS", None)  # of the make that called us
    with step("configuring PJSIP"):
        run(["./configure", *CONFIGURE], log, tree, env)
        complain_of_missing(tree)
    with step(f"compiling PJSIP {PJSIP} (half a minute on two cores)"):
        run(["make", "dep"], log, tree, env)
        run(["make", f"-j{os.cpu_count() or 1}", "lib"], log, tree, env)
    for folder in tree.glob("**/output"):
        shutil.rmtree(folder)
    done.touch()
    keep_newest((cache / "trees").iterdir(), KEPT_TREES, last_used_s)
    return tree


def unpack(source: Source, tree: Path, log: Path) -> None:
    if source.is_tree:
        shutil.copytree(source.path, tree, ignore=shutil.ignore_patterns(*(f"*{suffix}" for suffix in LEFT_OVER)))
    else:
        tree.mkdir(parents=True)
        run(["tar", "-xf", source.path, "-C", tree, "--strip-components=1"], log)
    version = version_of(tree)
    if version != PJSIP:
        shutil.rmtree(tree)
        raise BuildError(
            f"{source.path.name} holds {f'PJSIP {version}' if version else 'no PJSIP'}; Trunkline is made for {PJSIP}"
        )


def version_of(tree: Path) -> str:
    """As in version.mak: 2.17, or 2.17.1, or 2.17-dev; empty when this is no PJSIP."""
    file = tree / "version.mak"
    if not file.is_file():
        return ""
    found: dict[str, str] = dict(
        re.findall(r"^export PJ_VERSION_(\w+)\s*:=[ \t]*(\S*)", file.read_text(), re.MULTILINE)
    )
    numbers = [found[part] for part in ("MAJOR", "MINOR", "REV") if found.get(part)]
    return ".".join(numbers) + found.get("SUFFIX", "")


def add_srtp(tree: Path, tarball: Path, log: Path) -> None:
    """Debian's PJSIP comes without libsrtp; one file has another name in PJSIP's copy of it."""
    srtp = tree / "third_party/srtp"
    (srtp / "pjlib").mkdir(parents=True, exist_ok=True)
    run(["tar", "-xf", tarball, "-C", srtp, "--strip-components=1"], log)
    shutil.copy(srtp / "crypto/kernel/err.c", srtp / "pjlib/srtp_err.c")


def patch(tree: Path) -> None:
    shutil.copy(NATIVE / "config_site.h", tree / "pjlib/include/pj/config_site.h")
    replace_once(tree / "pjsip/src/pjsua-lib/pjsua_media.c", *RTP_RETRY)
    replace_once(tree / "pjsip/src/pjsip-ua/sip_inv.c", *NO_COMMON_CODEC)
    if not (tree / "pjmedia/src/pjmedia-audiodev/bdimad_dev.c").is_file():
        makefile = tree / "pjmedia/build/Makefile"  # Debian removed the file, and not its mention
        makefile.write_text(makefile.read_text().replace(" bdimad_dev.o", ""))


def replace_once(file: Path, old: str, new: str) -> None:
    """Raises BuildError unless `old` is in the file exactly once, or `new` is, in a tree that was ours before."""
    text = file.read_text()
    if (text.count(old), text.count(new)) == (0, 1):
        return
    if text.count(old) != 1:
        raise BuildError(
            f"{file.name} is not the one we know: {old.strip()!r} is {text.count(old)} times in it, not once"
        )
    file.write_text(text.replace(old, new))


def complain_of_missing(tree: Path) -> None:
    for file, (name, package) in NEEDED.items():
        if not re.search(rf"^#\s*define {name} 1$", (tree / file).read_text(), re.MULTILINE):
            raise BuildError(f"PJSIP would be built without {name}: {package} is not installed")


def last_used_s(tree: Path) -> float:
    """0 for what is left of an interrupted build."""
    done = tree / ".compiled"
    return done.stat().st_mtime if done.is_file() else 0.0
