"""`stt.deepgram`: Nova (`/v1/listen`) and Flux (`/v2/listen`), mu-law straight through, one WebSocket for each call.

The connection is opened when the call begins and again when it breaks. All audio that is not understood yet is kept (up
to KEPT_S), so that what a new connection is given begins where the old one had not finished. Whose words a result holds
is told by where in the call's audio it lies, not by the order of messages.

Nova ends utterances when it is told (Finalize); its own `speech_final` says that a phrase is complete. Flux ends turns
by itself: such a turn is a final nobody asked for. Neither promises an answer when it is told: after `final_ms` the
words so far are the final.

The SDK is not used here: bench/README.md has what it costs. The messages are as its types have them
(tests/agents/test_stt_deepgram.py).
"""

import asyncio
import json
import logging
import ssl
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode, urlsplit

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.options import THIRD_PARTY, is_third_party
from trunkline.agents.providers import Services
from trunkline.agents.script.keys import Key, Keys, fault, nearest
from trunkline.agents.websocket import Gone, Link, Refused
from trunkline.errors import ConfigError, MisuseError, ProviderError
from trunkline.ports import CallFacts, Expectation, SttEvent, SttFailed, SttFinal, SttPartial
from trunkline.privacy.redaction import quoted
from trunkline.types import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, Format

LOG = logging.getLogger(__name__)

DEEPGRAM_URL = "wss://api.deepgram.com"
KEPT_S = 15
"""Audio kept for a new connection; older is dropped and counted."""
CHUNK_MS = 80
"""Sent at once: Deepgram asks for 20 to 250 ms, Flux for 80."""
KEEPALIVE_S = 4.0
"""Without audio for 10 s Deepgram hangs up."""
AGAIN_S = 1.0
"""From a failed connection to the next attempt."""
PATIENCE_MAX_S = 60.0
"""Of a Retry-After."""
STALE_S = 10
"""Words after which nobody finalised for so long were nobody's turn."""
NEAR_S = 0.2
"""By how much Deepgram's times may differ from ours."""
TAIL_S = 1.0
"""A turn that Flux ended by itself is the whole utterance if no more than this of it followed: silence."""
MAX_DUE = 16

ENCODINGS = {"mulaw": "mulaw", "alaw": "alaw", "pcm16": "linear16"}

OPTIONS: Keys = {
    "model": Key("text", "`nova-3`, another Nova, `flux-general-en` or `flux-general-multi`.", "nova-3"),
    "language": Key(
        "text",
        "A language tag, or `multi`: any. Flux: a hint to `flux-general-multi`.",
        "the agent's `language`; of several, `multi` with all of them as hints",
    ),
    "keyterms": Key("list", "Names and terms to listen for.", ()),
    "feed": Key(
        "text",
        "What our detector takes for speech, or the whole call, which Deepgram charges for.",
        "gated",
        choices=("gated", "all"),
    ),
    "endpointing_ms": Key("whole", "Nova: silence after which it takes a phrase for complete.", 300, low=10, high=5000),
    "smart_format": Key("flag", "Nova: numbers, dates and money as they are written.", False),
    "numerals": Key("flag", "Numbers in digits.", True),
    "eot_threshold": Key("number", "Flux: how sure it must be that a turn has ended, 0.5 to 1.", 0.7, low=0, high=1),
    "eager_eot_threshold": Key(
        "number", "Flux: how sure it must be to say so early, 0.3 to 0.9; 0: never.", 0.5, low=0, high=1
    ),
    "eot_timeout_ms": Key("whole", "Flux: silence after which a turn has ended.", 5000, low=500, high=60000),
    "connect_ms": Key("whole", "The longest wait for the connection.", 3000, low=50, high=30000),
    "final_ms": Key("whole", "The longest wait for the words after the end of speech.", 1500, low=50, high=3900),
    "url": Key("text", "Another server that speaks Deepgram's protocol, such as your own.", DEEPGRAM_URL),
    "third_party": THIRD_PARTY,
    "opt_out": Key("flag", "Out of Deepgram's model improvement programme (`mip_opt_out`); it costs more.", False),
}


@dataclass(frozen=True, slots=True)
class Options:
    model: str
    language: str
    keyterms: tuple[str, ...]
    feed: Literal["all", "gated"]
    endpointing_ms: int
    smart_format: bool
    numerals: bool
    eot_threshold: float
    eager_eot_threshold: float
    eot_timeout_ms: int
    connect_ms: int
    final_ms: int
    url: str
    third_party: bool | None
    opt_out: bool
    hints: tuple[str, ...] = ()
    """The languages of an agent that has several."""

    @property
    def flux(self) -> bool:
        return self.model.startswith("flux")

    @property
    def product(self) -> str:
        """As the price list has it: several languages, and opting out, are dearer."""
        several = "-multilingual" if self.language == "multi" and self.model == "nova-3" else ""
        return ("opt-out-" if self.opt_out else "") + self.model + several

    def address(self, format: Format) -> str:
        """Where a connection goes, with all it asks for."""
        query: list[tuple[str, str]] = [
            ("model", self.model),
            ("encoding", ENCODINGS[format.encoding]),
            ("sample_rate", str(format.rate_hz)),
            *(("keyterm", term) for term in self.keyterms),
        ]
        if self.numerals:
            query.append(("numerals", "true"))
        if self.opt_out:
            query.append(("mip_opt_out", "true"))
        if self.flux:
            query += [("eot_threshold", str(self.eot_threshold)), ("eot_timeout_ms", str(self.eot_timeout_ms))]
            if self.eager_eot_threshold:
                query.append(("eager_eot_threshold", str(self.eager_eot_threshold)))
            if self.model == "flux-general-multi":
                hints = self.hints if self.language == "multi" else (self.language,)
                query += [("language_hint", hint) for hint in hints]
            return f"{self.url}/v2/listen?{urlencode(query)}"
        query += [("language", self.language), ("interim_results", "true"), ("endpointing", str(self.endpointing_ms))]
        if self.language == "multi" and self.model.startswith("nova-3"):
            query += [("language_hint", hint) for hint in self.hints]
        if self.smart_format:
            query.append(("smart_format", "true"))
        return f"{self.url}/v1/listen?{urlencode(query)}"


def read_options(options: Mapping[str, Any], heard: Sequence[str] = ("en",)) -> Options:
    """`heard`: the languages of the agent. Raises ConfigError."""
    held = {name: key.default for name, key in OPTIONS.items()}
    held["language"] = heard[0] if len(heard) == 1 else "multi"
    for name, value in options.items():
        key = OPTIONS.get(name)
        if key is None:
            raise ConfigError(f"stt.{name}", value, f"unknown key{nearest(name, OPTIONS)}")
        if wrong := fault(key, value):
            raise ConfigError(f"stt.{name}", value, wrong[1])
        held[name] = tuple(value) if key.kind == "list" else value
    parts = urlsplit(held["url"])
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.username is not None or parts.query:
        raise ConfigError("stt.url", held["url"], "must start with wss:// or ws:// and a host, without password")
    for name, low, high in (("eot_threshold", 0.5, 1.0), ("eager_eot_threshold", 0.3, 0.9)):
        if not low <= held[name] <= high and held[name] != 0:
            raise ConfigError(f"stt.{name}", held[name], f"a number from {low} to {high}")
    held["url"] = held["url"].rstrip("/")
    return Options(**held, hints=tuple(heard) if len(heard) > 1 else ())


class DeepgramStt:
    name = "deepgram"
    elsewhere = True
    formats: tuple[Format, ...] = (MULAW_8K, ALAW_8K, PCM_8K, PCM_16K)

    def __init__(self, definition: AgentDefinition, options: Mapping[str, Any], services: Services) -> None:
        """Raises ConfigError."""
        self.options = read_options(options, definition.heard)
        self.third_party = is_third_party(self.options.url, self.options.third_party)
        self.product = self.options.product
        self.feed_mode: Literal["all", "gated"] = self.options.feed
        self.clock = services.clock
        key = services.keys.get("deepgram")
        if key is None and self.options.url == DEEPGRAM_URL:
            raise ConfigError("deepgram.api_key", None, "an API key is needed for Deepgram's own server")
        self.headers = {"Authorization": f"Token {key or 'none'}"}
        self.tls: ssl.SSLContext | None = None

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        read_options(options)

    async def start(self) -> None:
        if self.options.url.startswith("wss:"):
            self.tls = ssl.create_default_context()  # once: it reads all roots

    def open(self, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> "Stream":
        if format not in self.formats:
            raise MisuseError(f"deepgram does not take {format}")
        return Stream(self, format, on_event)

    async def close(self) -> None: ...


# --- what was heard, by where it lies in the call's audio -----------------------------------------------------------


class Spoken(NamedTuple):
    word: str
    at: float
    """Its middle, in bytes of the call's audio."""
    language: str | None = None
    """As Nova tells it for each word, where it hears several languages."""


class Heard(NamedTuple):
    """A result of either protocol, its times in bytes of the call's audio."""

    start: float
    end: float
    text: str
    words: tuple[Spoken, ...]
    final: bool
    """These words will not change; what comes next begins after them."""
    complete: bool | None
    """A whole phrase, it thinks. None: as before, if the words are the same."""
    ends: Literal["", "asked", "itself"] = ""
    """The end of an utterance, that we asked for or that it found."""
    languages: tuple[str, ...] = ()
    """Of the whole, as it tells them: the most frequent first."""

    @property
    def begins(self) -> float:
        return self.words[0].at if self.words else self.start

    @property
    def tongues(self) -> Counter[str]:
        """Its words by their language. Flux tells the languages of the whole: of one all words are, of several nobody
        knows."""
        found = Counter(word.language for word in self.words if word.language)
        if not found and self.text and len(self.languages) == 1:
            found[self.languages[0]] = len(self.text.split())
        elif not found and self.text:
            found.update(self.languages)  # alike: none of them counts
        return found


_NOTHING = SttPartial("")


@dataclass(slots=True, eq=False)
class Utterance:
    start: int
    end: int | None = None
    """None while it is being fed."""
    forgotten: bool = False
    asked: bool = False
    """The service was told of its end, on this connection."""
    settled: list[Heard] = field(default_factory=list)
    """What will not change, each with its own words only."""
    open: Heard | None = None
    answered: bool = False
    """The service has said something of it, if only that there was nothing."""
    told: SttPartial = _NOTHING
    deadline: asyncio.TimerHandle | None = None

    @property
    def text(self) -> str:
        said = self.settled if self.open is None else (*self.settled, self.open)
        return " ".join(heard.text for heard in said if heard.text)

    @property
    def language(self) -> str | None:
        """That of two thirds of its words: names of people and places are often of another."""
        tongues = Counter[str]()
        for heard in self.settled if self.open is None else (*self.settled, self.open):
            tongues += heard.tongues
        if not tongues:
            return None
        language, words = tongues.most_common(1)[0]
        return language if words * 3 >= tongues.total() * 2 else None

    def take(self, heard: Heard) -> None:
        self.answered = True
        if not heard.final:
            self.open = heard
            return
        self.open = None
        if heard.text:
            self.settled.append(heard)

    def begin(self, at: int) -> None:
        """Not before there."""
        self.start = max(self.start, at)
        self.settled = [said for heard in self.settled if (said := since(heard, self.start)).text]
        self.open = None if self.open is None else since(self.open, self.start)


def share(heard: Heard, utterances: Sequence[Utterance]) -> list[tuple[Utterance, Heard]]:
    """The utterances that a result speaks of, and what of it is each one's."""
    touched = [u for u in utterances if u.start < heard.end and (u.end is None or heard.start < u.end)]
    if len(touched) == 1 and touched[0].start <= heard.start:
        return [(touched[0], heard)]
    if len(touched) == 1:
        return [(touched[0], since(heard, touched[0].start))]
    return [(u, _only(heard, u.start, u.end)) for u in touched]


def since(heard: Heard, start: int) -> Heard:
    """What of it was said from there on. Without the times of its words it counts whole, if it ends behind there."""
    if start <= heard.start or (not heard.words and start < heard.end):
        return heard
    return _only(heard, start, None)


def _only(heard: Heard, start: int, end: int | None) -> Heard:
    words = tuple(word for word in heard.words if start <= word.at and (end is None or word.at < end))
    return heard._replace(words=words, text=" ".join(word.word for word in words))


def read_message(data: str | bytes, origin: int, bytes_per_s: int) -> Heard | ProviderError | None:
    """What a message of either protocol says; None: nothing that matters. `origin`: where in the call's audio the
    connection began. Raises ValueError, KeyError, TypeError, AttributeError for what is no such message."""
    message = json.loads(data)
    match message["type"]:
        case "Results":
            found = message["channel"]["alternatives"][0]
            start = origin + message["start"] * bytes_per_s
            text = str(found["transcript"]).strip()
            return Heard(
                start,
                start + message["duration"] * bytes_per_s,
                text,
                _words(found.get("words"), origin, bytes_per_s),
                bool(message.get("is_final")),
                True if message.get("speech_final") else False if text else None,
                "asked" if message.get("from_finalize") else "",
                _languages(found.get("languages")),
            )
        case "TurnInfo":
            event = message["event"]
            return Heard(
                origin + message["audio_window_start"] * bytes_per_s,
                origin + message["audio_window_end"] * bytes_per_s,
                str(message["transcript"]).strip(),
                _words(message.get("words"), origin, bytes_per_s),
                event == "EndOfTurn",
                None if event == "Update" else event in ("EagerEndOfTurn", "EndOfTurn"),
                "" if event != "EndOfTurn" else "asked" if message.get("trigger") == "manual" else "itself",
                _languages(message.get("languages")),
            )
        case "Error":
            return _error("protocol", str(message.get("code") or message.get("variant") or "")[:60], retryable=True)
    return None


def _words(words: Any, origin: int, bytes_per_s: int) -> tuple[Spoken, ...]:
    return tuple(
        Spoken(
            str(each.get("punctuated_word") or each["word"]),
            origin + (each["start"] + each["end"]) / 2 * bytes_per_s,
            each.get("language"),
        )
        for each in words or ()
        if each.get("start") is not None and each.get("end") is not None
    )


def _languages(told: Any) -> tuple[str, ...]:
    return tuple(str(tag) for tag in told or ())


def _error(code: str, detail: str = "", *, retryable: bool) -> ProviderError:
    return ProviderError("deepgram", code, detail, retryable=retryable)


def refusal(refused: Refused) -> ProviderError:
    status = refused.status
    if status in (401, 403):
        return _error("auth", f"status {status}", retryable=False)
    if status == 402:
        return _error("rate_limited", "quota used up", retryable=False)
    if status == 429:
        after = refused.headers.get("retry-after", "")[:20]
        return _error("rate_limited", f"retry after {after} s" if after else "", retryable=True)
    if status >= 500:
        return _error("unavailable", f"status {status}", retryable=True)
    return _error("bad_request", f"status {status}", retryable=False)


def end_of(gone: Gone) -> ProviderError:
    """What a connection that broke means. 1008 with DATA-0000: the audio is not what we said it is."""
    if gone.code == 1008:
        return _error("bad_request", quoted(gone.reason, 60), retryable=False)
    return _error("protocol", f"the connection broke: {gone.code} {quoted(gone.reason, 60)}".strip(), retryable=True)


# --- one call's ears ------------------------------------------------------------------------------------------------


class Stream:
    """An SttStream."""

    def __init__(self, stt: DeepgramStt, format: Format, on_event: Callable[[SttEvent], None]) -> None:
        self._options, self._headers, self._tls, self._clock = stt.options, stt.headers, stt.tls, stt.clock
        self._on_event: Callable[[SttEvent], None] | None = on_event
        self._address = self._options.address(format)
        self._bytes_per_s = format.bytes_per_ms * 1000
        self._chunk_bytes = CHUNK_MS * format.bytes_per_ms
        self._silence = format.silence
        self._loop = asyncio.get_running_loop()
        # the call's audio, in bytes since its beginning
        self._kept = bytearray()
        self._fed = self._sent = 0  # `_kept` ends at `_fed`
        self._covered = 0.0  # understood to here: a new connection begins there
        self.dropped_bytes = 0
        """Audio that no connection was there for in time."""
        self._current = Utterance(0)
        self._due: deque[Utterance] = deque()
        # the connection
        self._link: Link | None = None
        self._origin = 0
        self._dialling: asyncio.Task[None] | None = None
        self._error: ProviderError | None = None
        self._again_at = self._patience_s = 0.0
        self._breaks = 0  # since the service last answered
        self._told_at = 0  # how much had been sent when the service last said something
        self._heartbeat: asyncio.TimerHandle | None = None
        self._spelling = False
        self._dial()

    # --- SttStream ---

    def feed(self, audio: bytes) -> None:
        if self._on_event is None or not audio:
            return
        self._kept += audio
        self._fed += len(audio)
        if self._link is None:
            self._forget_audio(self._fed - KEPT_S * self._bytes_per_s)
            self._dial()
        elif self._fed - self._sent >= self._chunk_bytes:
            self._pump()

    def began(self, ago_ms: int) -> None:
        """What was a noise, or an echo of our own voice, to us is none to Deepgram: it has words for it."""
        if self._on_event is not None:
            self._current.begin(self._fed - ago_ms * self._bytes_per_s // 1000)

    def expect(self, expectation: Expectation) -> None:
        """Flux takes the pause between groups of digits for the end of a turn: then only we say when it has ended."""
        spelling = expectation.digits_max > 0 or expectation.grammar.startswith("digits")
        if spelling is not self._spelling:
            self._spelling = spelling
            self._configure()

    def finalize(self) -> None:
        """Without words since the last: nothing was said, and SttFinal says so."""
        if self._on_event is None:
            return
        self._end_current(forgotten=False)

    def cancel(self) -> None:
        if self._on_event is not None and self._fed > self._current.start:
            self._end_current(forgotten=True)

    def close(self) -> None:
        self._on_event = None
        for utterance in self._due:
            _stop(utterance)
        self._due.clear()
        self._kept.clear()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if self._dialling is not None:
            self._dialling.cancel()
        if self._link is not None:
            self._link.send('{"type": "CloseStream"}')
            self._link.close()
            self._link = None

    # --- utterances ---

    def _end_current(self, *, forgotten: bool) -> None:
        utterance, self._current = self._current, Utterance(self._fed)
        utterance.end, utterance.forgotten = self._fed, forgotten
        self._due.append(utterance)
        if len(self._due) > MAX_DUE:
            self._loop.call_soon(self._answer, self._due[0], SttFailed(_error("overloaded", retryable=True)))
        if utterance.end == utterance.start:  # nothing was fed
            utterance.answered = True
            self._loop.call_soon(self._give_up, utterance)
            return
        if self._link is None:
            self._dial()
        if self._link is None and self._dialling is None:
            self._loop.call_soon(self._give_up, utterance)
            return
        utterance.deadline = self._loop.call_later(self._options.final_ms / 1000, self._give_up, utterance)
        self._pump()

    def _give_up(self, utterance: Utterance) -> None:
        """What is known of it is its final; a service that said nothing at all is not asked again."""
        if utterance not in self._due:
            return
        if utterance.forgotten or utterance.text or utterance.answered or self._told_at > utterance.start:
            self._answer(utterance, _final(utterance))
            return
        error = self._error
        if self._link is not None or error is None:
            error = _error("timeout", "no words came", retryable=True)
            self._hang_up(error)
        self._answer(utterance, SttFailed(error))

    def _answer(self, utterance: Utterance, event: SttEvent) -> None:
        """In their order: those before it that nobody has answered are given up with it."""
        while utterance in self._due:
            first = self._due.popleft()
            _stop(first)
            self._covered = max(self._covered, first.end or 0)
            if not first.forgotten and self._on_event is not None:
                self._on_event(event if first is utterance else _final(first))

    def _take(self, heard: Heard) -> None:
        stale = STALE_S * self._bytes_per_s
        for utterance, its in share(heard, (*self._due, self._current)):
            if its.text and utterance.settled and its.begins - utterance.settled[-1].end > stale:
                utterance.settled.clear()
            utterance.take(its)
        if heard.final:
            self._covered = max(self._covered, heard.end)
        elif not heard.text and self._options.flux:  # no turn has begun, or hardly
            self._covered = max(self._covered, heard.end - self._bytes_per_s)
        self._forget_audio(int(min(self._covered, self._sent)))
        if heard.ends:
            self._breaks = 0
            reached = heard.end + (NEAR_S if heard.ends == "asked" else TAIL_S) * self._bytes_per_s
            while self._due and self._due[0].asked and (self._due[0].end or 0) <= reached:
                self._answer(self._due[0], _final(self._due[0]))
        if self._on_event is None or not all(utterance.forgotten for utterance in self._due):
            return
        current = self._current
        if heard.ends == "itself" and current.text:
            self._current = Utterance(min(self._fed, int(heard.end)))
            self._on_event(_final(current))
            return
        told, text = current.told, current.text
        complete = told.complete and text == told.text if heard.complete is None else heard.complete
        partial = SttPartial(text, complete and bool(text))
        if partial != current.told:
            current.told = partial
            self._on_event(partial)

    # --- the connection ---

    def _dial(self) -> None:
        """Unless it is being tried, or was just now, or never will be any good."""
        if self._dialling is not None or self._link is not None or self._on_event is None:
            return
        if self._error is not None and (not self._error.retryable or self._clock.now() < self._again_at):
            return
        self._dialling = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        link = Link(self._address, self._headers, self._receive, self._gone)
        error: ProviderError | None = None
        try:
            async with asyncio.timeout(self._options.connect_ms / 1000):
                await link.open(self._tls)
        except TimeoutError:
            error = _error("timeout", "no connection", retryable=True)
        except Refused as refused:
            error = refusal(refused)
            after = refused.headers.get("retry-after", "")
            self._patience_s = min(float(after), PATIENCE_MAX_S) if after.isdecimal() else 0.0
        except (OSError, Gone) as failed:
            error = _error("unavailable", f"no connection: {type(failed).__name__}", retryable=True)
        self._dialling = None
        if self._on_event is None:
            link.abort()
        elif error is not None:
            self._failed(error)
        else:
            self._connected(link)

    def _connected(self, link: Link) -> None:
        self._link, self._error = link, None
        self._forget_audio(int(self._covered))
        self._origin = self._sent = self._fed - len(self._kept)
        for utterance in self._due:
            utterance.asked = False
        for utterance in (*self._due, self._current):
            utterance.open = None
        if self._spelling:
            self._configure()
        self._pump()
        self._beat()

    def _failed(self, error: ProviderError) -> None:
        """Nobody is there: who waits is told, who comes later may try again."""
        self._error = error
        self._again_at = self._clock.now() + max(AGAIN_S, self._patience_s)
        self._patience_s = 0.0
        for utterance in list(self._due):
            if utterance.text:
                self._answer(utterance, _final(utterance))
            else:
                self._answer(utterance, SttFailed(error))

    def _gone(self, gone: Gone) -> None:
        self._lost(end_of(gone))

    def _lost(self, error: ProviderError) -> None:
        """Once it is opened again, with the audio that was not understood."""
        self._hang_up(error)
        self._breaks += 1
        if error.retryable and self._breaks == 1:
            LOG.info("%s; opening another connection", error)
            self._error = None
            self._dial()
        else:
            self._breaks = 0
            self._failed(error)

    def _hang_up(self, error: ProviderError) -> None:
        if self._link is not None:
            self._link.abort()
        self._link, self._error, self._again_at = None, error, 0.0
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def _receive(self, data: str | bytes) -> None:
        try:
            said = read_message(data, self._origin, self._bytes_per_s)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            self._lost(_error("protocol", f"an unreadable message: {type(error).__name__}", retryable=True))
            return
        if isinstance(said, ProviderError):
            self._lost(said)
        elif said is not None:
            self._told_at = self._sent
            self._take(said)

    # --- sending ---

    def _pump(self) -> None:
        """Audio in its order, and the ends of utterances where they are."""
        if self._link is None:
            return
        for utterance in self._due:
            if not utterance.asked and utterance.end is not None:
                self._send_audio(utterance.end)
                self._link.send('{"type": "ForceEndTurn"}' if self._options.flux else '{"type": "Finalize"}')
                utterance.asked = True
        self._send_audio(self._fed)

    def _send_audio(self, until: int) -> None:
        at = self._fed - len(self._kept)
        while self._link is not None and self._sent < until:
            upto = min(until, self._sent + self._bytes_per_s)
            self._link.send(bytes(self._kept[self._sent - at : upto - at]))
            self._sent = upto
        self._forget_audio(self._fed - KEPT_S * self._bytes_per_s)

    def _forget_audio(self, until: int) -> None:
        """Keep none from before."""
        size = until - (self._fed - len(self._kept))
        if size > 0:
            del self._kept[:size]
            if until > self._sent:
                self.dropped_bytes += until - self._sent
                self._sent = until

    def _configure(self) -> None:
        if self._options.flux and self._link is not None:
            threshold = 1.0 if self._spelling else self._options.eot_threshold
            self._link.send(json.dumps({"type": "Configure", "thresholds": {"eot_threshold": threshold}}))

    def _beat(self, sent: int = -1) -> None:
        """Every few seconds: something is sent, if nothing was."""
        if self._link is None:
            return
        if sent == self._sent:
            if self._options.flux:  # knows no KeepAlive
                self.feed(self._silence * (self._chunk_bytes // len(self._silence)))
            else:
                self._link.send('{"type": "KeepAlive"}')
        self._heartbeat = self._loop.call_later(KEEPALIVE_S, self._beat, self._sent)


def _final(utterance: Utterance) -> SttFinal:
    return SttFinal(utterance.text, understood=bool(utterance.text), language=utterance.language)


def _stop(utterance: Utterance) -> None:
    if utterance.deadline is not None:
        utterance.deadline.cancel()
