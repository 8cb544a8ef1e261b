import re
from itertools import pairwise

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from trunkline.agents.local import ears as module
from trunkline.agents.local import voice
from trunkline.agents.local.ears import (
    FRAMES_PER_S,
    USUAL,
    Ears,
    Heard,
    Line,
    Partial,
    jsgf_words,
    loud_frames,
    unknown_words,
    upsampled,
    weigh,
    with_murmurs,
)
from trunkline.agents.local.wire import Message
from trunkline.errors import ProviderError
from trunkline.media import g711
from trunkline.testing import noises

MAIN = """#JSGF V1.0;
grammar main; // the words of this line are none
public <main> = what are your opening hours | confirm my appointment [please] | /2/ where is the <place> {a tag};
<place> = clinic | library;
"""
YES_NO = "#JSGF V1.0;\ngrammar yes_no;\npublic <yes_no> = yes | no;\n"


def spoken(text: str, *, gain: float = 0.5) -> bytes:
    """As a gated recogniser is fed: mu-law of the line, with 300 ms before the words and 200 ms after."""
    options = voice.VoiceOptions("en-us")
    samples = voice.engine().speak(text, options).samples.astype(np.float32)
    speech = soxr.resample(samples, voice.engine().rate_hz, 8000) * voice.gain(options, 8000) * gain
    line = np.concatenate([np.zeros(2400), speech, np.zeros(1600)])
    line += np.random.default_rng(1).normal(0, 8, len(line))
    return g711.encode(np.clip(line, -32768, 32767).astype("<i2").tobytes(), "mulaw")


@pytest.fixture(scope="module")
def ears() -> Ears:
    found = Ears()
    found.add({"main": MAIN, "yes_no": YES_NO})
    return found


def hear(ears: Ears, key: str, audio: bytes, line: Line | None = None) -> tuple[Heard, bool, Line, list[Partial]]:
    utterance = ears.begin(key, line)
    partials = [utterance.feed(g711.decode(audio[at : at + 160], "mulaw")) for at in range(0, len(audio), 160)]
    return *utterance.finish(), [partial for partial in partials if partial is not None]


def test_a_phrase_of_the_grammar_is_understood_on_a_line_never_heard_before(ears: Ears) -> None:
    heard, understood, line, partials = hear(ears, "main", spoken("what are your opening hours"))
    assert (heard.text, understood) == ("what are your opening hours", True)
    assert line.frames > 0
    assert (partials[-1].text, partials[-1].stable) == ("what are your opening hours", True)
    assert any(partial.likely for partial in partials)


@pytest.mark.parametrize("gain", [0.1, 0.9])
def test_a_quiet_caller_is_heard_like_a_loud_one(ears: Ears, gain: float) -> None:
    heard, understood, _, _ = hear(ears, "main", spoken("confirm my appointment please", gain=gain))
    assert (heard.text, understood) == ("confirm my appointment please", True)


@pytest.mark.parametrize("text", ["my internet is not working again", "two large pizzas with cheese", "hmm"])
def test_speech_outside_the_grammar_is_not_understood(ears: Ears, text: str) -> None:
    _, _, line, _ = hear(ears, "main", spoken("where is the clinic"))
    _, understood, after, _ = hear(ears, "main", spoken(text), line)
    assert not understood
    assert after.usual == line.usual


def test_each_utterance_has_the_grammar_it_began_with(ears: Ears) -> None:
    heard, understood, line, _ = hear(ears, "yes_no", spoken("yes"))
    assert (heard.text, understood) == ("yes", True)
    heard, _, _, _ = hear(ears, "main", spoken("where is the library"), line)
    assert heard.text == "where is the library"


def test_line_noise_alone_is_nothing(ears: Ears) -> None:
    noise = np.random.default_rng(2).normal(0, 60, 8000).astype(np.int16).tobytes()
    utterance = ears.begin("main")
    assert all(not (partial and partial.likely) for partial in [utterance.feed(noise)])
    _, understood, _ = utterance.finish()
    assert not understood


def test_no_audio_is_nothing_and_teaches_nothing(ears: Ears) -> None:
    utterance = ears.begin("main")
    assert utterance.feed(b"") is None
    heard, understood, line = utterance.finish()
    assert (heard.text, understood, line) == ("", False, Line())


def test_speech_without_end_is_cut_and_not_understood(ears: Ears, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UTTERANCE_S", 2)
    heard, understood, _, _ = hear(ears, "main", spoken("what are your opening hours") + b"\xff" * 8000)
    assert not heard.final
    assert not understood


def test_a_cancelled_utterance_gives_its_decoder_back(ears: Ears) -> None:
    first = ears.begin("main")
    first.feed(b"\x00\x00" * 800)
    first.cancel()
    first.cancel()
    heard, understood, _, _ = hear(ears, "main", spoken("where is the clinic"))
    assert (heard.text, understood) == ("where is the clinic", True)


def test_more_speakers_than_decoders_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DECODERS", 3)
    ears = Ears()
    ears.add({"yes_no": YES_NO})
    speaking = [ears.begin("yes_no") for _ in range(3)]
    with pytest.raises(ProviderError, match="overloaded"):
        ears.begin("yes_no")
    speaking[0].cancel()
    ears.begin("yes_no").cancel()


def test_an_unknown_word_is_refused_by_name_and_a_broken_grammar_by_its_own() -> None:
    ears = Ears()
    with pytest.raises(ProviderError, match="'blorpify'"):
        ears.add({"odd": "#JSGF V1.0;\ngrammar odd;\npublic <odd> = please blorpify;\n"})
    with pytest.raises(ProviderError, match="'torn'"):
        ears.add({"torn": "#JSGF V1.0;\ngrammar torn;\npublic <torn> = yes | (no;\n"})
    with pytest.raises(ProviderError, match="no grammar 'torn'"):
        ears.begin("torn")
    ears.add({"yes_no": YES_NO})
    heard, _, _, _ = hear(ears, "yes_no", spoken("no"))
    assert heard.text == "no"


def test_the_words_of_a_grammar_are_those_that_are_said() -> None:
    said = "appointment are clinic confirm hours is library my opening please the what where your"
    assert " ".join(sorted(jsgf_words(MAIN))) == said
    assert unknown_words(MAIN) == []
    assert unknown_words("#JSGF V1.0;\ngrammar x;\npublic <x> = xyzzy | plugh+ (yes)*;\n") == ["plugh", "xyzzy"]


def test_the_worst_word_and_unclaimed_speech_count_against_a_phrase() -> None:
    quiet, loud = np.zeros(100, dtype=bool), np.ones(100, dtype=bool)
    good = weigh([("<sil>", 0, 9, -30.0), ("yes", 10, 59, -200.0), ("sir(2)", 60, 99, -160.0)], loud, final=True)
    assert (good.text, good.frames, good.mean) == ("yes sir", 90, -4.0)
    assert good.understood()
    one_bad = weigh([("yes", 10, 59, -200.0), ("sir", 60, 99, -500.0)], quiet, final=True)
    assert one_bad.score < good.score
    beside = weigh([("yes", 10, 39, -180.0), ("<sil>", 40, 99, -600.0)], loud, final=True)
    assert beside.unclaimed == 0.7
    assert not beside.understood()
    assert not weigh([("<sil>", 0, 99, -300.0)], loud, final=True).understood()
    assert not weigh([("yes", 10, 59, -200.0)], quiet, final=False).understood()


def test_what_is_usual_moves_with_the_caller_but_not_away(ears: Ears) -> None:
    audio = spoken("what are your opening hours")
    line = Line()
    seen = [line.usual]
    for _ in range(4):
        heard, _, line, _ = hear(ears, "main", audio, line)
        seen.append(line.usual)
    target = min(max(heard.score, module.USUAL_LIMITS[0]), module.USUAL_LIMITS[1])
    assert seen[0] == USUAL
    assert abs(seen[-1] - target) < max(0.3, abs(seen[0] - target))


def test_a_murmur_is_no_nearest_phrase(ears: Ears) -> None:
    _, _, line, _ = hear(ears, "main", spoken("where is the clinic"))
    for seed in range(5):
        hum = np.concatenate([np.zeros(2400), 32000 * np.asarray(noises.hum(seed)), np.zeros(1600)])
        audio = g711.encode(hum.astype("<i2").tobytes(), "mulaw")
        _, understood, _, partials = hear(ears, "yes_no", audio, line)
        assert not understood
        assert not any(partial.likely for partial in partials)


def test_murmurs_go_into_the_public_rule_and_are_no_words() -> None:
    extended = with_murmurs(YES_NO)
    assert "<murmurs_> | yes | no;" in extended
    heard = weigh([("_mhm", 10, 59, -200.0)], np.ones(100, dtype=bool), final=True)
    assert (heard.text, heard.understood()) == ("", False)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_upsampling_in_pieces_is_upsampling_at_once(lengths: list[int]) -> None:
    samples = np.random.default_rng(3).integers(-30000, 30000, sum(lengths)).astype(np.int16)
    bounds = [0, *np.cumsum(lengths)]
    pieces = [upsampled(samples[a:b], int(samples[a - 1]) if a else 0) for a, b in pairwise(bounds)]
    assert np.array_equal(np.concatenate(pieces), upsampled(samples, 0))


def test_loud_frames_are_those_that_stand_out() -> None:
    pcm = np.concatenate([np.full(1600, 10), np.full(1600, 8000), np.full(1600, 10)]).astype(np.int16)
    assert loud_frames(pcm).nonzero()[0].tolist() == list(range(20, 40))
    assert len(loud_frames(pcm)) == 60 * FRAMES_PER_S // 100
    assert not loud_frames(np.full(1600, 10, dtype=np.int16)).any()
    assert len(loud_frames(np.zeros(0, dtype=np.int16))) == 0


def test_a_job_speaks_in_messages_and_yields_its_turn() -> None:
    ears = Ears()
    list(ears.preload(Message("grammars", {"agent": "a", "grammars": {"yes_no": YES_NO}})))
    job = ears.open()
    assert list(job.handle(Message("begin", {"agent": "a", "grammar": "yes_no", "encoding": "mulaw"}))) == []
    replies = list(job.handle(Message("audio", data=spoken("yes"))))
    assert {reply.name for reply in replies} == {"", "partial"}
    (final,) = job.handle(Message("finish"))
    assert (final.name, final.fields["text"], final.fields["understood"]) == ("final", "yes", True)
    job.close()

    again = ears.open()
    begin = {"agent": "a", "grammar": "yes_no", "encoding": "pcm16", "line": final.fields["line"]}
    list(again.handle(Message("begin", begin)))
    list(again.handle(Message("audio", data=g711.decode(spoken("no"), "mulaw"))))
    (final,) = again.handle(Message("finish"))
    assert final.fields["text"] == "no"
    again.close()


def test_a_job_closed_in_the_middle_frees_its_decoder_and_audio_before_begin_is_a_protocol_error() -> None:
    ears = Ears()
    ears.add({"a/yes_no": YES_NO})
    job = ears.open()
    list(job.handle(Message("begin", {"agent": "a", "grammar": "yes_no", "encoding": "mulaw"})))
    free = len(ears._free)
    job.close()
    assert len(ears._free) == free + 1
    with pytest.raises(ProviderError, match=re.escape("audio before begin")):
        list(ears.open().handle(Message("audio", data=b"\xff" * 160)))


def test_a_short_word_must_be_as_good_as_usual_and_a_longer_phrase_need_not() -> None:
    """Most of what a cough or a cleared throat was taken for is a "bye" of a quarter of a second."""
    for frames, mean, understood in [(26, -7.0, False), (26, -6.2, False), (26, -5.0, True), (60, -8.4, True)]:
        loud = np.zeros(100, dtype=bool)
        loud[10 : 10 + frames] = True
        heard = weigh([("bye", 10, 9 + frames, mean * frames)], loud, final=True)
        assert heard.score == pytest.approx(2 * mean)
        assert heard.understood(-12.8) is understood


def test_a_grammar_that_is_removed_is_heard_to_the_end_and_not_again() -> None:
    ears = Ears()
    message = Message("grammars", {"agent": "a", "grammars": {"yes_no": YES_NO}})
    list(ears.preload(message))
    list(ears.preload(Message("grammars", {"agent": "b", "grammars": {"yes_no": YES_NO}})))
    utterance = ears.begin("a/yes_no")
    ears.unload(message)
    utterance.feed(bytes(16000))
    utterance.finish()
    with pytest.raises(ProviderError, match="no grammar"):
        ears.begin("a/yes_no")
    ears.begin("b/yes_no").finish()
    list(ears.preload(message))
    ears.begin("a/yes_no").finish()
