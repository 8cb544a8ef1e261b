"""The loudspeaker's position, timers, the wake word and noise suppression."""

from pathlib import Path

import numpy as np
import pytest

from trunkline.device.playback import Playback
from trunkline.device.timers import Timers, spoken
from trunkline.types import PCM_16K

MS = PCM_16K.bytes_per_ms


def test_the_position_counts_what_was_played_and_goes_on_behind_what_was_dropped() -> None:
    playback = Playback()
    playback.give(b"\1\0" * (100 * MS // 2))
    assert playback.pull(30 * MS) == b"\1\0" * (30 * MS // 2)
    assert (playback.played_ms, playback.clear(), playback.played_ms) == (30, 30, 100)
    assert playback.pull(MS) == bytes(MS)


def test_a_timer_rings_once_when_it_is_time() -> None:
    timers = Timers()
    timers.set(5, 0.0)
    assert timers.left_s(60.0) == 240.0
    assert timers.due(299.9) == []
    assert [timer.minutes for timer in timers.due(300.0)] == [5]
    assert timers.due(301.0) == []
    assert spoken(125) == "2 minutes and 5 seconds"


def test_the_wake_word_is_found_and_where_it_ends() -> None:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    from trunkline.device.quality import spoken as said
    from trunkline.device.wakeword import KeyphraseSpotter

    pcm16 = said("hey trunkline", "en-us", 165, 50)
    spotter = KeyphraseSpotter("hey trunkline")
    hits = [hit for at in range(0, len(pcm16), 640) if (hit := spotter.push(pcm16[at : at + 640]))]
    assert len(hits) == 1
    assert 1.5 < hits[0].ends_at / 16_000 < 2.1


def test_noise_is_taken_out_of_the_pauses() -> None:
    from trunkline.device.suppression import NoiseSuppression

    noise = np.random.default_rng(0).normal(0, 300, 48_000).astype(np.int16).tobytes()
    suppression = NoiseSuppression()
    out = b"".join(suppression.feed(noise[at : at + 640]) for at in range(0, len(noise), 640))
    suppression.close()
    assert len(out) == len(noise)
    quiet = np.frombuffer(out, np.int16)[32_000:].astype(float)
    assert 20 * np.log10(300 / max(1.0, float(np.sqrt(np.mean(quiet**2))))) > 12


def test_words_are_recognised_behind_noise_suppression(tmp_path: Path) -> None:
    pocketsphinx = pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    from trunkline.device.quality import spoken as said
    from trunkline.device.suppression import NoiseSuppression

    phrases = ("what are your opening hours", "i want to cancel my appointment", "set a timer for five minutes")
    (tmp_path / "phrases").write_text(f"#JSGF V1.0; grammar g; public <s> = {' | '.join(phrases)};")
    noisy = said("", "en-us", 165, 50, snr_db=5.0)
    suppression = NoiseSuppression()
    out = b"".join(suppression.feed(noisy[at : at + 640]) for at in range(0, len(noisy), 640))
    suppression.close()
    decoder = pocketsphinx.Decoder(jsgf=str(tmp_path / "phrases"), lm=None, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(out, False, True)
    decoder.end_utt()
    assert decoder.hyp().hypstr == phrases[0]
