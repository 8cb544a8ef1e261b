"""Steps a person can follow: a line each, with the time it took; a failure shows the end of its log."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

LOG_LINES = 20
STEP_S = 1800.0


class BuildError(Exception):
    """What went wrong, for the person at the terminal; may have several lines."""


def say(text: str, end: str = "\n") -> None:
    print(f"pjsip: {text}", end=end, file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    began = time.monotonic()
    say(f"{what} ...", end=" ")
    try:
        yield
    except BaseException:
        print("failed", file=sys.stderr, flush=True)
        raise
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path], log: Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Runs it with its output appended to `log`; raises BuildError with the log's last lines."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    with log.open("ab") as out:
        out.write(f"$ {' '.join(words)}\n".encode())
        out.flush()
        try:
            code = subprocess.run(
                words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=STEP_S
            ).returncode
        except FileNotFoundError:
            raise BuildError(f"{words[0]} is not installed") from None
        except subprocess.TimeoutExpired:
            raise BuildError(f"{words[0]} took over {STEP_S:.0f} s and was stopped; its log is {log}") from None
    if code:
        raise BuildError(f"{words[0]} failed (exit code {code}):\n{tail(log)}\nThe whole log: {log}")


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])


def output(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """What it prints; raises BuildError."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_S)
    except FileNotFoundError:
        raise BuildError(f"{words[0]} is not installed") from None
    if done.returncode:
        raise BuildError(f"{words[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout
