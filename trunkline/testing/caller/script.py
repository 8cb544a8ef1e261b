"""What the caller does: a list of actions, done one after another on the 20 ms tick. A plain core.

Text becomes audio before the call (`Say` and `Wav` -> `Speak`), so nothing here waits on anything but the agent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import ConfigError
from trunkline.testing.caller.speech import Speech

QUIET_MS = 500  # 400-700: long enough to be the end of an answer, short enough to be a lively caller
ANSWER_TIMEOUT_S = 15.0
KEY_GAP_MS = 240  # a person's quick keying


@dataclass(frozen=True, slots=True)
class Listen:
    """Until the agent has spoken since the caller's last act, its audio has been played out and it is quiet."""

    quiet_ms: int = QUIET_MS
    timeout_s: float = ANSWER_TIMEOUT_S
    """Of hearing nothing; an answer may be as long as it likes."""


@dataclass(frozen=True, slots=True)
class ListenInto:
    """Until `ms` of an answer given since the caller's last act have been heard (or it ended before): then barge in."""

    ms: int
    timeout_s: float = ANSWER_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Pause:
    ms: int


@dataclass(frozen=True, slots=True)
class Speak:
    speech: Speech


@dataclass(frozen=True, slots=True)
class Say:
    """Spoken by espeak-ng."""

    text: str


@dataclass(frozen=True, slots=True)
class Wav:
    path: Path


@dataclass(frozen=True, slots=True)
class Keys:
    digits: str

    def __post_init__(self) -> None:
        if not self.digits or set(self.digits) - set("0123456789*#ABCD"):
            raise ConfigError("dtmf", self.digits, "digits 0-9, *, # and A-D")


@dataclass(frozen=True, slots=True)
class HangUp:
    pass


@dataclass(frozen=True, slots=True)
class Vanish:
    """The socket goes away without a stop."""


@dataclass(frozen=True, slots=True)
class FallSilent:
    """Send no more media, but stay connected (`ms`, then the call is hung up)."""

    ms: int = 10_000


Action = Listen | ListenInto | Pause | Speak | Say | Wav | Keys | HangUp | Vanish | FallSilent
Spoken = Say | Wav | Speak


def conversation(items: Sequence[Spoken | Keys], *, barge_in_after_ms: int | None = None) -> list[Action]:
    """Hear each answer out before saying the next thing, and the last one before hanging up.

    With `barge_in_after_ms` the last spoken item is said that far into the answer before it.
    """
    spoken = [i for i, item in enumerate(items) if not isinstance(item, Keys)]
    actions: list[Action] = []
    for i, item in enumerate(items):
        barges = barge_in_after_ms is not None and spoken and i == spoken[-1]
        actions.append(ListenInto(barge_in_after_ms) if barges and barge_in_after_ms is not None else Listen())
        actions.append(item)
    return [*actions, Listen(), HangUp()]


def parse_step(step: str) -> list[Action]:
    """One step of a caller script: `say TEXT`, `wav FILE`, `keys DIGITS`, `barge MS say TEXT`, `listen [MS]`,
    `pause MS`, `silent MS`, `hangup` or `vanish`. Raises ConfigError."""
    verb, _, rest = step.strip().partition(" ")
    rest = rest.strip()
    try:
        match verb:
            case "say" if rest:
                return [Say(rest)]
            case "wav" if rest:
                return [Wav(Path(rest))]
            case "keys":
                return [Keys(rest)]
            case "barge":
                ms, _, inner = rest.partition(" ")
                return [ListenInto(int(ms)), *parse_step(inner)]
            case "listen":
                return [Listen(int(rest) if rest else QUIET_MS)]
            case "pause":
                return [Pause(int(rest))]
            case "silent":
                return [FallSilent(int(rest))]
            case "hangup":
                return [HangUp()]
            case "vanish":
                return [Vanish()]
    except ValueError:
        pass
    raise ConfigError("script", step, "say TEXT, wav FILE, keys DIGITS, barge MS say TEXT, listen, pause MS, hangup")


def parse_script(text: str) -> list[Action]:
    """A caller script, one step a line, `#` comments. A spoken or keyed step listens first unless told how."""
    actions: list[Action] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        step = parse_step(line)
        told = actions and isinstance(actions[-1], Listen | ListenInto | Pause)
        if isinstance(step[0], Say | Wav | Keys) and not told:
            actions.append(Listen())
        actions += step
    if not actions or not isinstance(actions[-1], HangUp | Vanish | FallSilent):
        actions += [Listen(), HangUp()]
    return actions
