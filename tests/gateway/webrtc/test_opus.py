import numpy as np
import pytest

pytest.importorskip("av", reason="libopus comes with the extra webrtc")

from trunkline.gateway.webrtc.opus import RATE_HZ, SILENCE, Decoder, Encoder, duration_ms

FRAME = RATE_HZ // 50


def tone(seconds: float = 1.0, hz: float = 300.0) -> np.ndarray:
    time = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    return (8000 * np.sin(2 * np.pi * hz * time)).astype("<i2")


def packets(samples: np.ndarray) -> list[bytes]:
    encoder = Encoder()
    return [encoder.encode(samples[i : i + FRAME].tobytes()) for i in range(0, len(samples), FRAME)]


def decoded(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(float)


def test_a_voice_goes_there_and_back() -> None:
    samples = tone()
    decoder = Decoder()
    back = decoded(b"".join(decoder.decode(p) for p in packets(samples)))
    assert len(back) == len(samples)
    errors = [np.std(samples[:7000] - back[lag : lag + 7000]) for lag in range(60)]
    assert min(errors) < np.std(samples) / 10  # 20 dB


def test_silence_is_silent() -> None:
    decoder = Decoder()
    assert decoded(b"".join(decoder.decode(SILENCE) for _ in range(10))).max() == 0
    assert duration_ms(SILENCE) == 20


def test_a_lost_packet_sounds_on() -> None:
    sent = packets(tone())
    decoder = Decoder()
    for packet in sent[:20]:
        decoder.decode(packet)
    concealed = decoded(decoder.conceal(20, sent[21]))
    assert len(concealed) == FRAME
    assert np.std(concealed) > 1000  # a hole would be 0


def test_concealment_fades_when_nothing_comes_any_more() -> None:
    decoder = Decoder()
    for packet in packets(tone(0.4)):
        decoder.decode(packet)
    levels = [np.std(decoded(decoder.conceal(20))) for _ in range(50)]
    assert levels[-1] < levels[0] / 5


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
@pytest.mark.parametrize("frame_ms", [10, 20, 60])
def test_any_bandwidth_and_length_is_decoded_to_the_lane(rate_hz: int, frame_ms: int) -> None:
    import fractions

    from av import AudioFrame, CodecContext

    codec = CodecContext.create("libopus", "w")
    codec.bit_rate, codec.format, codec.layout, codec.sample_rate = 24000, "s16", "stereo", rate_hz
    codec.options = {"application": "voip", "frame_duration": str(frame_ms)}
    codec.time_base = fractions.Fraction(1, rate_hz)
    count = rate_hz * frame_ms // 1000
    decoder = Decoder()
    for n in range(4):
        frame = AudioFrame(format="s16", layout="stereo", samples=count)
        frame.planes[0].update(bytes(4 * count))
        frame.sample_rate, frame.pts = rate_hz, n * count
        for packet in codec.encode(frame):
            assert duration_ms(bytes(packet)) == frame_ms
            assert len(decoder.decode(bytes(packet))) == frame_ms * 16


def test_what_is_not_opus_is_nothing() -> None:
    decoder = Decoder()
    assert duration_ms(b"") == 0
    assert duration_ms(b"\xff") == 0  # a count is missing
    assert decoder.decode(b"\xff\xff\xff\xff") == b""
    assert len(decoder.decode(packets(tone(0.02))[0])) == FRAME * 2


def test_closing_twice_is_closing() -> None:
    decoder, encoder = Decoder(), Encoder()
    for one in (decoder, encoder, decoder, encoder):
        one.close()
