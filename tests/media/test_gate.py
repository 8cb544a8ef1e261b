"""What a tap hears through a door that opens and shuts."""

from pathlib import Path
from typing import Any

from trunkline.media.gate import Channel, Gate
from trunkline.media.recorder import HOLD_MS, Recorder, wav_header
from trunkline.ports import Allow
from trunkline.types import MULAW_8K

HEADER = len(wav_header(MULAW_8K, 0))
FRAME = 160  # samples


class Notes:
    def __init__(self) -> None:
        self.written: list[tuple[Channel, int, bytes]] = []
        self.cuts: list[tuple[Channel, int]] = []
        self.closed = 0

    def write(self, channel: Channel, position: int, data: bytes) -> None:
        self.written.append((channel, position, data))

    def cut(self, channel: Channel, position: int) -> None:
        self.cuts.append((channel, position))

    def close(self) -> None:
        self.closed += 1


def test_nothing_is_opened_before_it_may_be_and_nothing_is_filled_in() -> None:
    tap, made = Notes(), list[Any]()

    def make() -> Notes:
        made.append(tap)
        return tap

    gate = Gate(make, is_open=False)
    gate.write("caller", 0, b"a" * FRAME)
    gate.write("agent", 0, b"b" * FRAME)
    gate.cut("agent", 80)
    assert not made
    gate.open()
    gate.write("caller", FRAME, b"c" * FRAME)
    assert tap.written == [("caller", FRAME, b"c" * FRAME)]
    gate.shut()
    gate.write("caller", 2 * FRAME, b"d" * FRAME)
    gate.write("agent", 2 * FRAME, b"e" * FRAME)
    assert len(tap.written) == 1
    assert tap.cuts == [("agent", 2 * FRAME), ("caller", 2 * FRAME)]
    gate.close()
    gate.close()
    assert tap.closed == 1


def test_a_call_that_is_never_agreed_to_has_no_tap() -> None:
    def never() -> None:
        raise AssertionError("opened")

    gate = Gate(never, is_open=False)
    gate.write("caller", 0, b"a" * FRAME)
    gate.shut()
    gate.close()
    gate.open()
    gate.write("caller", FRAME, b"a" * FRAME)


def samples(path: Path, side: int) -> bytes:
    return path.read_bytes()[HEADER:][side::2]


def test_a_recording_has_silence_where_the_door_was_shut_however_long_and_its_times_are_the_calls(
    tmp_path: Path,
) -> None:
    """Minutes: longer than a recorder would take for the place of a frame."""
    path, second = tmp_path / "a.wav", 8000
    recorder = Recorder(path, Allow())
    gate = Gate(lambda: recorder, is_open=False)

    def passes(start: int, seconds: int) -> None:
        for position in range(start * second, (start + seconds) * second, 10 * FRAME):
            gate.write("caller", position, b"c" * 10 * FRAME)
            gate.write("agent", position, b"g" * 10 * FRAME)

    passes(0, 100)
    gate.open()
    passes(100, 3)
    gate.write("agent", 103 * second, b"x" * second)  # it was to be heard yet
    gate.shut()
    passes(103, 150)
    gate.open()
    passes(253, 1)
    gate.shut()
    passes(254, 2)
    gate.close()
    assert recorder.wait(5)
    assert (recorder.stats.dropped, recorder.stats.late, recorder.stats.failed) == (0, 0, "")
    caller, agent = samples(path, 0), samples(path, 1)
    still = MULAW_8K.silence
    for said, letter in ((caller, b"c"), (agent, b"g")):
        assert said[: 100 * second] == still * 100 * second
        assert said[100 * second : 103 * second] == letter * 3 * second
        assert said[103 * second : 253 * second] == still * 150 * second
        assert said[253 * second : 254 * second] == letter * second
        assert said[254 * second :] == still * 2 * second
    assert HOLD_MS > 1500  # what a leg has ahead is not on disk yet when it is taken back
