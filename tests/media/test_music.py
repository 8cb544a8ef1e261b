import numpy as np

from trunkline.media import g711
from trunkline.media.music import hold_music
from trunkline.media.sources import FRAME


def test_it_is_whole_frames_of_twelve_seconds_made_once() -> None:
    assert hold_music() is hold_music()
    assert hold_music().duration_ms == 12_000
    assert len(hold_music().audio) % FRAME == 0


def test_it_is_audible_all_the_time_neither_loud_nor_clipped_nor_outside_a_telephones_band() -> None:
    audio = g711.MULAW_F32.take(np.frombuffer(hold_music().audio, np.uint8)).astype(np.float64)
    rms_dbfs = 10 * np.log10(np.mean(audio.reshape(-1, 2000) ** 2, axis=1))
    assert rms_dbfs.min() > -32
    assert rms_dbfs.max() < -16
    assert np.abs(audio).max() < 0.5
    power = np.abs(np.fft.rfft(audio)) ** 2
    hz = np.fft.rfftfreq(len(audio), 1 / 8000)
    assert power[(hz > 100) & (hz < 3400)].sum() > 0.98 * power.sum()


def test_its_end_goes_over_into_its_beginning_without_a_click() -> None:
    audio = g711.MULAW_F32.take(np.frombuffer(hold_music().audio, np.uint8))
    assert abs(float(audio[0] - audio[-1])) < np.abs(np.diff(audio)).max()
