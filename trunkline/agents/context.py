"""What a model is told of a long conversation: its beginning as a summary, the rest as it was said. Plain values.

The conversation itself stays whole; `view` is what the model sees of it. Tokens are estimated from characters, and the
estimate is corrected by what providers count: of two requests the difference tells, since instructions and tools are
in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.agents.definition import ContextTerms
from trunkline.ports import Message

LETTERS_A_TOKEN = 4  # of English; less where a language is written with others, which the correction finds out
MESSAGE_TOKENS = 4  # its role, and what stands between two
RATIO_MIN, RATIO_MAX = 0.5, 4.0
"""Beyond them it is no count of what was told: some servers leave out what they had in a cache."""
TELLING = 100  # tokens that two requests differ by at least, for their difference to tell
SUMMARY_WORDS = 200
SUMMARY_LETTERS = 4000
"""A model that writes a book is cut off."""
PROMPT = (
    "This is not the caller: do not answer it. Below is the beginning of a telephone call. Sum it up for whoever goes "
    f"on with it, in at most {SUMMARY_WORDS} words of plain text: who calls and what they want, every name, number, "
    "date and decision, what was promised, what is still open. Leave out greetings, and use no tool.\n\n"
)
_SPEAKERS = {"caller": "Caller", "agent": "Agent", "tool": "Result", "summary": "Before that"}


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of a conversation, to be summed up."""

    messages: tuple[Message, ...]
    upto: int
    """It ends before this message of the conversation."""


class Context:
    """Of one call and one agent. `terms` None: everything is told."""

    def __init__(self, terms: ContextTerms | None) -> None:
        self._terms = terms
        self._summary: Message | None = None
        self._covered = 0
        """So many messages of the conversation are told as the summary, or not at all."""
        self._first: dict[str, tuple[int, int]] = {}  # by provider: what was estimated, what it counted
        self._ratio = 1.0

    def view(self, conversation: Sequence[Message]) -> list[Message]:
        rest = list(conversation[self._covered :])
        return rest if self._summary is None else [self._summary, *rest]

    def tokens(self, conversation: Sequence[Message]) -> int:
        """Of what the model sees: an estimate."""
        return round(estimate(self.view(conversation)) * self._ratio)

    def due(self, conversation: Sequence[Message]) -> Part | None:
        """What is to be summed up now: all but the latest messages, once the view is too long, and it is worth a
        request."""
        terms = self._terms
        if terms is None or self.tokens(conversation) <= terms.max_tokens:
            return None
        upto = latest(conversation, terms.keep_messages)
        if upto - self._covered < max(2, terms.keep_messages // 2):
            return None
        return Part(tuple(self.view(conversation[:upto])), upto)

    def summed_up(self, part: Part, text: str) -> None:
        self._summary, self._covered = Message("summary", text[:SUMMARY_LETTERS].strip()), part.upto

    def left_out(self, part: Part) -> None:
        """Nobody could sum it up: it is forgotten. An earlier summary stays."""
        if self._summary is None and part.messages and part.messages[0].role == "summary":
            self._summary = part.messages[0]  # of who attended before us
        self._covered = part.upto

    def counted(self, provider: str, asked: Sequence[Message], tokens: int) -> None:
        """`tokens`: of the request that told `asked`, and instructions and tools, by the provider's own count."""
        estimated = estimate(asked)
        before, counted = self._first.setdefault(provider, (estimated, tokens))
        if abs(estimated - before) >= TELLING:
            ratio = (tokens - counted) / (estimated - before)
            self._ratio = ratio if RATIO_MIN <= ratio <= RATIO_MAX else self._ratio


def estimate(messages: Sequence[Message]) -> int:
    """Tokens."""
    letters = sum(
        len(m.text) + sum(len(call.name) + len(str(dict(call.arguments))) for call in m.tool_calls) for m in messages
    )
    return letters // LETTERS_A_TOKEN + MESSAGE_TOKENS * len(messages)


def latest(conversation: Sequence[Message], count: int) -> int:
    """Where the latest messages begin: at least so many. A tool's result stays with its call, and what the caller said
    with what they said just before."""
    at = max(0, len(conversation) - count)
    while at and (conversation[at].role == "tool" or (conversation[at].role == conversation[at - 1].role == "caller")):
        at -= 1
    return at


def request(part: Part) -> Message:
    """What a model is asked, in place of a caller."""
    return Message("caller", PROMPT + "\n".join(_line(message) for message in part.messages if _line(message)))


def _line(message: Message) -> str:
    acts = "".join(f" [{call.name} {dict(call.arguments)}]" for call in message.tool_calls)
    said = message.text + (" (interrupted)" if message.cut else "") + (" (keyed)" if message.keyed else "")
    return f"{_SPEAKERS[message.role]}: {said}{acts}" if message.text or acts else ""
