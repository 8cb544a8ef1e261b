"""What the caller hears of the agent, cut into answers: the part that every kind of wire shares."""

from dataclasses import dataclass

from trunkline.types import MULAW_8K

GAP_LIMIT_MS = 2000  # a longer silence is a pause between answers (a no-input prompt), not a hole in one


@dataclass(slots=True)
class Answer:
    """One run of agent speech as the caller heard it. `*_at` are the caller's `now`."""

    index: int
    started_at: float
    """Arrival of its first media message."""
    heard_bytes: int = 0
    gaps: int = 0
    gap_ms: int = 0
    largest_gap_ms: int = 0
    cleared_at: float | None = None
    unheard_ms: int = 0
    """What a clear threw away."""
    last_mark: str = ""
    """The last mark whose audio was fully heard."""
    pending_marks: tuple[str, ...] = ()
    """Marks that a clear brought back."""
    audio: bytearray | None = None
    """What was heard, where audio is kept."""

    @property
    def heard_ms(self) -> int:
        return self.heard_bytes // MULAW_8K.bytes_per_ms


class Ear:
    """Audio belongs to one answer until it is cut off, until the caller has spoken and it has fallen silent, or until a
    silence longer than GAP_LIMIT_MS."""

    def __init__(self, *, keep_audio: bool = False, keep_answers: bool = False) -> None:
        """`keep_audio`: every frame heard; `keep_answers`: each answer's audio."""
        self.keep_audio, self._keep_answers = keep_audio, keep_answers
        self.answers: list[Answer] = []
        self.heard: list[bytes] = []
        """One mu-law frame a tick, where audio is kept."""
        self._answer: Answer | None = None
        self._moved_on = False  # the caller has said or keyed something since the current answer began

    @property
    def current(self) -> Answer | None:
        return self._answer

    def caller_spoke(self) -> None:
        """The caller's last word or key was just sent: audio after the next silence is another answer."""
        self._moved_on = True

    def cut_off(self, at: float) -> Answer | None:
        """The current answer fell silent at `at` because the caller spoke: it is over."""
        cut, self._answer = self._answer, None
        if cut is not None:
            cut.cleared_at = at
        return cut

    def _join(self, now: float, silent_ms: int, *, hole: bool) -> Answer:
        """The answer that audio coming now belongs to. `hole`: the silence before it was one, if inside an answer."""
        answer = self._answer
        if answer is None or (silent_ms and (self._moved_on or silent_ms > GAP_LIMIT_MS)):
            audio = bytearray() if self._keep_answers else None
            answer = self._answer = Answer(len(self.answers), now, audio=audio)
            self.answers.append(answer)
            self._moved_on = False
        elif silent_ms and hole:
            answer.gaps += 1
            answer.gap_ms += silent_ms
            answer.largest_gap_ms = max(answer.largest_gap_ms, silent_ms)
        return answer
