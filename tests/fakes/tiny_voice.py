"""A voice folder that sherpa-onnx loads: a Piper model of one hum a phoneme, in the bytes of an ONNX file.

Sources: onnx.proto (field numbers), and what sherpa-onnx reads of a Piper model (csrc/offline-tts-vits-model.cc: the
metadata, the inputs `input`, `input_lengths`, `scales`). Written by hand as nothing here writes ONNX.
"""

import shutil
from pathlib import Path

RATE_HZ = 22050
SAMPLES_A_PHONEME = 1000
FLOAT, INT64 = 1, 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _value(name: str, kind: int, shape: list[int | str]) -> bytes:
    dims = b"".join(_bytes(1, _number(1, d) if isinstance(d, int) else _bytes(2, d)) for d in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, dims)))


def _node(kind: str, inputs: list[str], output: str, attribute: bytes = b"") -> bytes:
    return b"".join(_bytes(1, name) for name in inputs) + _bytes(2, output) + _bytes(4, kind) + attribute


def _constant(name: str, shape: list[int], numbers: list[int]) -> bytes:
    dims = b"".join(_number(1, d) for d in shape)
    raw = b"".join(n.to_bytes(8, "little", signed=True) for n in numbers)
    return dims + _number(2, INT64) + _bytes(8, name) + _bytes(9, raw)


def model() -> bytes:
    """Each phoneme's id, as a float, SAMPLES_A_PHONEME times; through a sine."""
    to_float = _bytes(5, _bytes(1, "to") + _number(3, FLOAT) + _number(20, 2))
    nodes = [
        _node("Cast", ["input"], "f", to_float),
        _node("Reshape", ["f", "column"], "c"),
        _node("Tile", ["c", "repeats"], "t"),
        _node("Sin", ["t"], "s"),
        _node("Reshape", ["s", "row"], "output"),
    ]
    constants = [
        _constant("column", [2], [-1, 1]),
        _constant("repeats", [2], [1, SAMPLES_A_PHONEME]),
        _constant("row", [3], [1, 1, -1]),
    ]
    inputs = [
        _value("input", INT64, [1, "n"]),
        _value("input_lengths", INT64, [1]),
        _value("scales", FLOAT, [3]),
    ]
    graph = b"".join(_bytes(1, node) for node in nodes) + _bytes(2, "hum")
    graph += b"".join(_bytes(5, each) for each in constants) + b"".join(_bytes(11, each) for each in inputs)
    graph += _bytes(12, _value("output", FLOAT, [1, 1, "m"]))
    metadata = {
        "sample_rate": str(RATE_HZ),
        "n_speakers": "1",
        "language": "English",
        "voice": "en-us",
        "comment": "piper",
        "has_espeak": "1",
        "add_blank": "1",
    }
    props = b"".join(_bytes(14, _bytes(1, key) + _bytes(2, value)) for key, value in metadata.items())
    return _number(1, 8) + _bytes(8, _number(2, 13)) + _bytes(7, graph) + props


def write(folder: Path) -> Path:
    import espeakng_loader

    folder.mkdir(parents=True)
    (folder / "en_US-hum.onnx").write_bytes(model())
    symbols = "_^$ !',.:;?abcdefghijklmnopqrstuvwxyzæçðøŋœɐɑɒɔəɚɛɜɡɪɫɬɹɾʃʊʌʍʒʔˈˌːθᵻ"
    (folder / "tokens.txt").write_text("".join(f"{s} {at}\n" for at, s in enumerate(symbols)), encoding="utf-8")
    shutil.copytree(espeakng_loader.get_data_path(), folder / "espeak-ng-data")
    return folder
