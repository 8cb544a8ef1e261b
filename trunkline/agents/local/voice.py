"""espeak-ng as the voice: text in, telephone audio and word times out. Runs in a speech worker, or in process.

espeak-ng speaks some 1,500 times faster than real time and has one state per process, so a piece of text (a sentence,
at most MAX_PIECE_CHARS) is synthesized whole in a few milliseconds, then resampled, levelled, encoded and handed out
chunk by chunk. Word events name a character of the piece and a sample; "10:30" or "$12" are several events and "of the"
is one, so events are folded into the tokens of `text.split()`, which are the words we report. Where a word ends is
where its sound ends: the pause after it is nobody's.
"""

import bisect
import ctypes
import functools
import os
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from trunkline.agents.local.wire import Message
from trunkline.errors import MissingExtra, ProviderError
from trunkline.media import g711
from trunkline.types import Encoding, Format

MAX_PIECE_CHARS = 160  # some 10 s of speech, 7 ms of work: the longest that others in the process wait
MAX_TOKEN_CHARS = 100  # of one token (a URL, a key): what is beyond is not read out
CHUNKS_MS = (90, 100, 200, 400)  # into the resampler, which gives blocks of 67 ms: the first is waited for
TRAILING_PAUSE_MS = 200  # at most, after the last word: phrases are spoken one by one, and need a breath between
SPEECH_LEVEL_DBFS = -18.0  # RMS while speaking; G.711 lines are lined up between -16 and -20
LOUD = 100  # of 32,768: espeak's own silence is below
LEAD_IN_MS = 4
RATES_WPM = (80, 450)  # espeak-ng's own limits
PITCHES = (0, 99)
NAMED_VOICES = 64  # whose level is remembered
REFERENCE = "Good morning, the doctor will see you on Tuesday at a quarter past nine."
ABBREVIATIONS = frozenset(["Dr.", "Mr.", "Mrs.", "Ms.", "St.", "Prof."])
"""Their full stop ends no sentence; espeak-ng would pause."""

Pcm = NDArray[np.int16]
WordTime = tuple[str, int, int]
"""text, start_ms, end_ms."""


# --- voices ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VoiceOptions:
    name: str = "en-us"
    """A language of espeak-ng, and maybe a variant: en-us, en-gb+f3."""
    words_per_minute: int = 165
    pitch: int = 50


def data_path() -> Path:
    """Of espeak-ng's data. Raises MissingExtra."""
    try:
        import espeakng_loader
    except ImportError:
        raise MissingExtra("espeakng-loader", "local") from None
    return Path(espeakng_loader.get_data_path())


@functools.cache
def languages() -> dict[str, str]:
    """Lower-case language tag -> file of the voice, as `espeak_SetVoiceByName` takes it. Read from the data's files."""
    found: dict[str, tuple[int, str]] = {}
    root = data_path() / "lang"
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        name = file.relative_to(root).as_posix()
        tags = re.findall(r"^language\s+(\S+)(?:\s+(\d+))?", file.read_text("utf-8", "replace"), re.MULTILINE)
        for tag, priority in [*tags, (file.name, "9")]:
            rank = int(priority or 5)  # lower is preferred
            if rank < found.get(tag.lower(), (99, ""))[0]:
                found[tag.lower()] = (rank, name)
    return {tag: name for tag, (_, name) in sorted(found.items())}


@functools.cache
def variants() -> tuple[str, ...]:
    return tuple(sorted(path.name for path in (data_path() / "voices" / "!v").iterdir()))


def voice_file(name: str) -> str | None:
    """en-gb+f3 -> gmw/en+f3; None if there is no such voice."""
    language, plus, variant = name.partition("+")
    file = languages().get(language.lower().replace("_", "-"))
    if file is None or (plus and variant not in variants()):
        return None
    return file + plus + variant


# --- text -----------------------------------------------------------------------------------------------------------


_LONG_NUMBER = re.compile(r"(\W*)((?:\d{3,}[-.])+\d{3,}|\d{5,})(\W*)")


def speakable(token: str) -> str:
    """A token as espeak-ng is to read it: blanks for what cannot be said; 555-1234 and 47112 digit by digit."""
    if token in ABBREVIATIONS:
        return token[:-1]
    token = "".join(" " if _unspeakable(character) else character for character in token[:MAX_TOKEN_CHARS])
    if (number := _LONG_NUMBER.fullmatch(token)) is not None:
        before, digits, after = number.groups()
        return before + ", ".join(" ".join(group) for group in re.split("[-.]", digits)) + after
    return token


def _unspeakable(character: str) -> bool:
    # Controls (some command espeak-ng), lone surrogates, unassigned; pictographs, which it would name; their joiners.
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "So", "Sk", "Me"}


def pieces(text: str) -> list[str]:
    """Text, blanks normalised, cut after sentences; a long one after a clause; a very long one between words.

    The first is the first clause, if it can be: how soon it is done is how soon speech begins, also for the others.
    espeak-ng takes clause by clause itself, so cuts there are not heard.
    """
    sentences: list[list[str]] = [[]]
    for token in text.split():
        sentences[-1].append(token)
        if token.rstrip("\"')]»”’").endswith((".", "!", "?", "…")) and token not in ABBREVIATIONS:
            sentences.append([])
    cut = [piece for sentence in sentences for piece in _cut(sentence)]
    if cut and (first := re.match(r".{8,}?[,;:](?= )", cut[0])) is not None:
        cut[:1] = [first.group(), cut[0][first.end() + 1 :]]
    joined: list[str] = []
    for piece in cut:  # "No. Yes." is one piece: each piece costs a message
        if joined and len(joined[-1]) < 8:
            joined[-1] += " " + piece
        else:
            joined.append(piece)
    return joined


def _cut(tokens: Sequence[str]) -> Iterator[str]:
    while tokens:
        length, last, clause = 0, 0, 0
        for index, token in enumerate(tokens, 1):
            length += min(len(token), MAX_TOKEN_CHARS) + 1
            if length > MAX_PIECE_CHARS and last:
                break
            last = index
            if token.endswith((",", ";", ":", "-", "–", "—")):
                clause = index
        end = last if last == len(tokens) else clause or last
        yield " ".join(tokens[:end])
        tokens = tokens[end:]


# --- espeak-ng ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sound:
    """One piece as espeak-ng spoke it: samples, and (character, sample) where it began a word."""

    samples: Pcm
    events: tuple[tuple[int, int], ...]


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_SYNCHRONOUS, _DONT_EXIT = 2, 0x8000
_BUFFER_MS = 200  # a callback each
_RATE, _PITCH = 1, 3
_CHARS_UTF8, _END_PAUSE = 1, 0x1000
_IPA = 2  # bit 1 of phoneme_mode
_LIST_TERMINATED, _WORD = 0, 1
_MAX_PATH_BYTES = 120  # espeak-ng keeps its data's path in 160 bytes and appends to it


class Engine:
    """The library, with its one state. Several threads may use it, by turns."""

    def __init__(self) -> None:
        data = str(data_path())
        import espeakng_loader

        if len(os.fsencode(data)) > _MAX_PATH_BYTES:
            self._folder = os.open(data, os.O_RDONLY)  # open as long as the process lives
            data = f"/proc/self/fd/{self._folder}"
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.rate_hz: int = self._library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, os.fsencode(data), _DONT_EXIT)
        if self.rate_hz <= 0:
            raise ProviderError("espeak", "unavailable", "espeak-ng did not start", retryable=False)
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = callback(self._take)  # must outlive the library's use of it
        self._library.espeak_SetSynthCallback(self._callback)
        self._lock = threading.Lock()
        self._voice: VoiceOptions | None = None
        self._samples: list[bytes] = []
        self._events: list[tuple[int, int]] = []

    def speak(self, text: str, voice: VoiceOptions) -> Sound:
        """`text` as `speakable` leaves it. Raises ProviderError `bad_request` for an unknown voice."""
        encoded = text.encode("utf-8", "replace") + b"\0"
        with self._lock:
            self._select(voice)
            self._samples.clear()
            self._events.clear()
            flags = _CHARS_UTF8 | _END_PAUSE
            if self._library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 1, 0, flags, None, None):
                raise ProviderError("espeak", "unavailable", "espeak-ng refused the text", retryable=True)
            return Sound(np.frombuffer(b"".join(self._samples), dtype=np.int16), tuple(self._events))

    def phonemes(self, text: str, voice: VoiceOptions) -> str:
        """One clause in IPA, as espeak-ng would say it; for voices that are not its own. Raises ProviderError."""
        encoded = ctypes.create_string_buffer(text.encode("utf-8", "replace"))
        rest, found = ctypes.c_void_p(ctypes.addressof(encoded)), list[str]()
        with self._lock:
            self._select(voice)
            translate = self._library.espeak_TextToPhonemes
            translate.restype = ctypes.c_char_p
            while rest.value:
                found.append((translate(ctypes.byref(rest), _CHARS_UTF8, _IPA) or b"").decode("utf-8", "replace"))
        return " ".join(" ".join(found).split())

    def _select(self, voice: VoiceOptions) -> None:
        if voice == self._voice:
            return
        file = voice_file(voice.name)
        if file is None or self._library.espeak_SetVoiceByName(file.encode()):
            raise ProviderError("espeak", "bad_request", f"no voice {voice.name!r}", retryable=False)
        self._library.espeak_SetParameter(_RATE, voice.words_per_minute, 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        self._voice = voice

    def _take(self, samples: int | None, count: int, events: Any) -> int:
        if samples and count:
            self._samples.append(ctypes.string_at(samples, count * 2))
        index = 0
        while (event := events[index]).type != _LIST_TERMINATED:
            if event.type == _WORD:
                self._events.append((event.text_position - 1, event.sample))
            index += 1
        return 0


# --- from sound to telephone audio ----------------------------------------------------------------------------------


def fold(tokens: Sequence[str], sound: Sound) -> list[tuple[str, int, int]]:
    """Each token with the samples it takes in `sound`, in order. One without a sound of its own lies, empty, behind
    the one before; those that espeak-ng runs together share the time by their letters."""
    starts_at, position = [], 0
    for token in tokens:
        starts_at.append(position)
        position += len(speakable(token)) + 1
    begins: list[int | None] = [None] * len(tokens)
    latest = 0
    for character, sample in sound.events:
        latest = max(latest, bisect.bisect_right(starts_at, max(0, character)) - 1)
        if begins[latest] is None:
            begins[latest] = sample
    return list(_spans(tokens, begins, sound.samples))


def _spans(tokens: Sequence[str], begins: list[int | None], samples: Pcm) -> Iterator[tuple[str, int, int]]:
    at = 0
    index = 0
    while index < len(tokens):
        after = index + 1
        while after < len(tokens) and begins[after] is None:
            after += 1
        begin = begins[index]
        if begin is None:  # only before the first event
            begin = at
        limit = begins[after] if after < len(tokens) else len(samples)
        assert limit is not None
        begin = max(at, min(begin, len(samples)))
        end = max(begin, _sound_end(samples, begin, limit))
        group = tokens[index:after]
        letters = [sum(map(str.isalnum, speakable(token))) for token in group]
        if not any(letters):
            letters[0] = 1
        spoken = 0
        for token, count in zip(group, letters, strict=True):
            start = begin + (end - begin) * spoken // sum(letters)
            spoken += count
            at = begin + (end - begin) * spoken // sum(letters)
            yield token, start, at
        index = after


def _sound_end(samples: Pcm, begin: int, limit: int) -> int:
    loud = np.flatnonzero(np.abs(samples[begin:limit]) > LOUD)
    return begin + int(loud[-1]) + 1 if len(loud) else begin


def _speech_level(samples: NDArray[np.float32], rate_hz: int) -> float:
    """RMS of the blocks in which there is speech (within 30 dB of the loudest)."""
    block = rate_hz // 50
    power = (samples[: len(samples) // block * block].reshape(-1, block) ** 2).mean(axis=1)
    return float(np.sqrt(power[power > power.max() / 1000].mean())) if len(power) else 0.0


def limited(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Full scale is 1. Peaks above 0.7 are bent, none reaches 0.99."""
    knee, room = 0.7, 0.29
    if len(samples) == 0 or max(samples.max(), -samples.min()) <= knee:
        return samples
    over = np.abs(samples) - knee
    bent = np.copysign(knee + room * np.tanh(over / room), samples)
    return np.where(over > 0, bent, samples).astype(np.float32)


class Utterance:
    """One utterance as a stream: pieces in, audio in `format` and words out, in the time of the audio given out."""

    def __init__(self, engine: Engine, voice: VoiceOptions, format: Format, gain: float) -> None:
        self._engine, self._voice, self._format, self._gain = engine, voice, format, gain
        self._resampler = soxr.ResampleStream(engine.rate_hz, format.rate_hz, 1, dtype="float32")
        self._taken_samples = 0
        """Of espeak-ng's audio, without the silence before the first sound."""
        self._chunk_count = 0
        self._given_bytes = 0
        self._words: list[WordTime] = []

    def say(self, piece: str, *, last: bool) -> Iterator[tuple[bytes, list[WordTime]]]:
        tokens = piece.split()
        sound = self._engine.speak(" ".join(map(speakable, tokens)), self._voice) if tokens else _SILENCE
        rate_hz = self._engine.rate_hz
        start, end = 0, len(sound.samples)
        loud = np.flatnonzero(np.abs(sound.samples) > LOUD)
        if len(loud) == 0:
            end = 0
        else:
            if self._taken_samples == 0:
                start = max(0, int(loud[0]) - LEAD_IN_MS * rate_hz // 1000)
            if last:
                end = min(end, int(loud[-1]) + TRAILING_PAUSE_MS * rate_hz // 1000)
        origin = self._taken_samples - start
        for token, begin, finish in fold(tokens, sound):
            begin, finish = (min(max(sample, start), end) + origin for sample in (begin, finish))
            self._words.append((token, begin * 1000 // rate_hz, finish * 1000 // rate_hz))
        self._taken_samples += max(0, end - start)
        if last and not self._taken_samples:
            return  # nothing in the whole text can be said
        yield from self._chunks(sound.samples[start:end], last=last)

    def _chunks(self, samples: Pcm, *, last: bool) -> Iterator[tuple[bytes, list[WordTime]]]:
        start, ended = 0, False
        while not ended:
            size_ms = CHUNKS_MS[min(self._chunk_count, len(CHUNKS_MS) - 1)]
            after = start + size_ms * self._engine.rate_hz // 1000
            ended = after >= len(samples)
            chunk = self._encode(samples[start:after], last=last and ended)
            start = after
            self._chunk_count += 1
            self._given_bytes += len(chunk)
            words = self._finished_words(last=last and ended)
            if chunk or words:
                yield chunk, words

    def _finished_words(self, *, last: bool) -> list[WordTime]:
        given_ms = self._given_bytes / self._format.bytes_per_ms
        done = 0
        while done < len(self._words) and (last or self._words[done][2] <= given_ms):
            done += 1
        words, self._words = self._words[:done], self._words[done:]
        return words

    def _encode(self, samples: Pcm, *, last: bool) -> bytes:
        scaled = samples.astype(np.float32) * np.float32(self._gain / 32768)
        resampled = limited(self._resampler.resample_chunk(scaled, last=last))
        pcm = (resampled * np.float32(32767)).astype(np.int16).tobytes()
        encoding = self._format.encoding
        return pcm if encoding == "pcm16" else g711.encode(pcm, encoding)


_SILENCE = Sound(np.zeros(0, dtype=np.int16), ())
_starting = threading.Lock()  # `cache` alone lets two threads begin two engines, each with a lock of its own


def engine() -> Engine:
    """The process's one: espeak-ng has one state, and two callers at once end the process."""
    with _starting:
        return _engine()


@functools.cache
def _engine() -> Engine:
    return Engine()


@functools.lru_cache(NAMED_VOICES)
def gain(voice: VoiceOptions, rate_hz: int) -> float:
    """What brings this voice, in the band of `rate_hz`, to SPEECH_LEVEL_DBFS: one figure, so that a whisper in the
    text stays one."""
    sound = engine().speak(REFERENCE, voice)
    scaled = sound.samples.astype(np.float32) / np.float32(32768)
    level = _speech_level(soxr.resample(scaled, engine().rate_hz, rate_hz), rate_hz)
    return 10 ** (SPEECH_LEVEL_DBFS / 20) / level if level else 1.0


def utterance(voice: VoiceOptions, format: Format) -> Utterance:
    """Raises ProviderError `bad_request` for an unknown voice, MissingExtra."""
    return Utterance(engine(), voice, format, gain(voice, format.rate_hz))


def synthesize(text: str, voice: str = "en-us", rate_hz: int = 8000, *, words_per_minute: int = 165) -> bytes:
    """All at once, in this process: mono 16-bit PCM. Raises ProviderError `bad_request` for an unknown voice."""
    options = VoiceOptions(voice, words_per_minute)
    whole = utterance(options, Format("pcm16", rate_hz))
    cut = pieces(text)
    return b"".join(
        chunk for index, piece in enumerate(cut) for chunk, _ in whole.say(piece, last=index == len(cut) - 1)
    )


# --- in a worker ----------------------------------------------------------------------------------------------------


class Voices:
    """The pool's kind `voice`. begin{voice, encoding, rate_hz}, then say{text, last}* -> audio{words}* said{}."""

    def preload(self, message: Message) -> Iterable[Message]:
        for rate_hz in (8000, 16000):
            options = _options(message)
            for _ in utterance(options, Format("mulaw", rate_hz)).say(REFERENCE, last=True):
                yield Message("")

    def unload(self, message: Message) -> None:
        """A voice that was loaded costs nothing more."""

    def open(self) -> "Voice":
        return Voice()


class Voice:
    """One utterance in a worker."""

    def __init__(self) -> None:
        self._utterance: Utterance | None = None

    def handle(self, message: Message) -> Iterable[Message]:
        if message.name == "begin":
            encoding: Encoding = message.fields["encoding"]
            self._utterance = utterance(_options(message), Format(encoding, message.fields["rate_hz"]))
        elif message.name == "say" and self._utterance is not None:
            for chunk, words in self._utterance.say(message.fields["text"], last=message.fields["last"]):
                yield Message("audio", {"words": words} if words else {}, chunk)
            yield Message("said")

    def close(self) -> None:
        self._utterance = None


def _options(message: Message) -> VoiceOptions:
    name, words_per_minute, pitch = message.fields["voice"]
    return VoiceOptions(name, words_per_minute, pitch)
