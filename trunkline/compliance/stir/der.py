"""The two extensions of a STIR certificate (RFC 8226 8, 9; RFC 9118), read strictly: DER of definite length, nothing
left over."""

from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_ENTRIES = 10_000  # of a TNAuthList
MAX_NAMES = 64
_SEQUENCE, _INTEGER, _UTF8, _IA5 = 0x30, 0x02, 0x0C, 0x16


@dataclass(frozen=True, slots=True)
class TnAuthList:
    """What its holder may sign for: all numbers of a provider, or these."""

    providers: tuple[str, ...] = ()
    """Service Provider Codes (OCN, SPID)."""
    ranges: tuple[tuple[str, int], ...] = field(default=(), repr=False)
    """First number and how many; a single number is a range of one."""

    def covers(self, number: str) -> bool:
        """`number`: canonical. A provider's code says nothing of which numbers are its own."""
        return bool(self.providers) or any(_within(number, first, count) for first, count in self.ranges)

    def encompasses(self, below: "TnAuthList") -> bool:
        """Of a certificate issued under it (RFC 9060 4.1). Numbers under a provider's code cannot be looked up here."""
        if not set(below.providers) <= set(self.providers):
            return False
        return bool(self.providers) or all(
            any(_within(first, *held) and _within(_last(first, count), *held) for held in self.ranges)
            for first, count in below.ranges
        )


@dataclass(frozen=True, slots=True)
class ClaimConstraints:
    """RFC 8226 8: what a token signed with it must say, and may."""

    must_include: tuple[str, ...] = ()
    must_exclude: tuple[str, ...] = ()
    permitted: tuple[tuple[str, tuple[str, ...]], ...] = ()


def tn_auth_list(der: bytes) -> TnAuthList:
    """Raises ValueError."""
    providers: list[str] = []
    ranges: list[tuple[str, int]] = []
    for at, (tag, content) in enumerate(_elements(_only(der, _SEQUENCE))):
        if at >= MAX_ENTRIES:
            raise ValueError(f"more than {MAX_ENTRIES} entries")
        match tag:  # explicit tags
            case 0xA0:
                providers.append(_ia5(_only(content, _IA5)))
            case 0xA1:
                ranges.append(_range(_only(content, _SEQUENCE)))
            case 0xA2:
                ranges.append((_number(_only(content, _IA5)), 1))
            case _:
                raise ValueError(f"an entry tagged {tag:#x}")
    if not providers and not ranges:
        raise ValueError("an empty list")
    return TnAuthList(tuple(providers), tuple(ranges))


def claim_constraints(der: bytes, *, enhanced: bool = False) -> ClaimConstraints:
    """`enhanced`: RFC 9118's, which may exclude as well. Raises ValueError."""
    found: dict[int, bytes] = {}
    for tag, content in _elements(_only(der, _SEQUENCE)):
        if tag in found or tag not in ((0xA0, 0xA1, 0xA2) if enhanced else (0xA0, 0xA1)):
            raise ValueError(f"an element tagged {tag:#x}")
        found[tag] = content
    permitted: list[tuple[str, tuple[str, ...]]] = []
    for tag, content in _elements(_only(found[0xA1], _SEQUENCE)) if 0xA1 in found else ():
        if tag != _SEQUENCE or len(permitted) >= MAX_NAMES:
            raise ValueError("permittedValues are no sequences, or too many")
        (name_tag, name), (values_tag, values) = _pair(content)
        if name_tag != _IA5 or values_tag != _SEQUENCE:
            raise ValueError("permittedValues without a name and values")
        permitted.append((_ia5(name), _texts(values, _UTF8)))
    names = [_texts(_only(found[tag], _SEQUENCE), _IA5) if tag in found else () for tag in (0xA0, 0xA2)]
    return ClaimConstraints(names[0], names[1], tuple(permitted))


def _range(content: bytes) -> tuple[str, int]:
    (first_tag, first), (count_tag, count) = _pair(content)
    if first_tag != _IA5 or count_tag != _INTEGER or not 0 < len(count) <= 8:
        raise ValueError("a range without its first number and count")
    found = int.from_bytes(count, "big", signed=True)
    if found < 2:
        raise ValueError("a range of fewer than two")
    return _number(first), found


def _within(number: str, first: str, count: int) -> bool:
    if count == 1:
        return number == first
    if not (number.isdecimal() and first.isdecimal()) or len(number) != len(first):
        return False
    return int(first) <= int(number) < int(first) + count


def _last(first: str, count: int) -> str:
    return first if count == 1 or not first.isdecimal() else str(int(first) + count - 1).zfill(len(first))


def _number(content: bytes) -> str:
    text = _ia5(content)
    if not 0 < len(text) <= 15 or not set(text) <= set("0123456789*#"):
        raise ValueError("no telephone number of 1 to 15 characters")
    return text


def _texts(content: bytes, tag: int) -> tuple[str, ...]:
    found: list[str] = []
    for each, text in _elements(content):
        if each != tag or len(found) >= MAX_NAMES:
            raise ValueError("texts of another kind, or too many")
        found.append(_utf8(text))
    return tuple(found)


def _ia5(content: bytes) -> str:
    if not content or any(byte < 0x20 or byte > 0x7E for byte in content):
        raise ValueError("no text of ASCII")
    return content.decode("ascii")


def _utf8(content: bytes) -> str:
    if not content:
        raise ValueError("an empty text")
    return content.decode("utf-8")


def _pair(content: bytes) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    found = list(_elements(content))
    if len(found) != 2:
        raise ValueError("not two elements")
    return found[0], found[1]


def _only(data: bytes, tag: int) -> bytes:
    found = list(_elements(data))
    if len(found) != 1 or found[0][0] != tag:
        raise ValueError(f"not one element tagged {tag:#x}")
    return found[0][1]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        tag = data[at]
        if tag & 0x1F == 0x1F or at + 2 > len(data):
            raise ValueError("a tag of several bytes, or no length")
        length = data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 3 or at + size > len(data):
                raise ValueError("a length that is indefinite, too long or cut off")
            length = int.from_bytes(data[at : at + size], "big")
            if length < 0x80 or length >> (8 * (size - 1)) == 0:
                raise ValueError("a length that is not the shortest")
            at += size
        if at + length > len(data):
            raise ValueError("an element that is cut off")
        yield tag, data[at : at + length]
        at += length
