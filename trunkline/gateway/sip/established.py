"""What of the messages that set a dialog up its BYE needs (RFC 3261 12.1), for when the stack cannot send it itself."""

from trunkline.errors import PeerError
from trunkline.gateway.sip.farewell import CSEQ_AHEAD, Farewell, Transport
from trunkline.gateway.sip.message import Head, parse_head, parse_name_addr

PJSIP_FIRST_CSEQ = 0x7FFF
"""At most: it begins at random."""


def of_ours(answer: str) -> Farewell:
    """A call of ours, by the 2xx to its INVITE. Raises PeerError."""
    head = parse_head(answer)
    sequence = _one(head, "cseq").split()[0]
    if not (sequence.isascii() and sequence.isdigit()):
        raise PeerError("a CSeq without a number")
    return Farewell(
        _one(head, "call-id"),
        _one(head, "from"),
        _one(head, "to"),
        _target(head),
        tuple(reversed(head.items("record-route"))),
        int(sequence) + CSEQ_AHEAD,
        transport_of(head),
    )


def of_theirs(invite: str, ack: str) -> Farewell:
    """A call that came, by its INVITE and the ACK to our answer, which has our tag. Raises PeerError."""
    head = parse_head(invite)
    ours = parse_name_addr(_one(parse_head(ack), "to"))
    if ours is None or not ours.params.get("tag"):
        raise PeerError("an ACK without our tag")
    return Farewell(
        _one(head, "call-id"),
        f"{_one(head, 'to')};tag={ours.params['tag']}",
        _one(head, "from"),
        _target(head),
        head.items("record-route"),
        PJSIP_FIRST_CSEQ + CSEQ_AHEAD,
        transport_of(head),
    )


def _target(head: Head) -> str:
    """Its Contact's URI as it stands."""
    contact = next(iter(head.items("contact")), "")
    if parse_name_addr(contact) is None:
        raise PeerError("no Contact")
    return contact.partition("<")[2].partition(">")[0] or contact.partition(";")[0].strip()


def transport_of(head: Head) -> Transport:
    """By the topmost Via, which the sender wrote."""
    via = (head.items("via") or ("",))[0].upper()
    return "tls" if "/TLS" in via else "tcp" if "/TCP" in via else "udp"


def _one(head: Head, name: str) -> str:
    value = head.first(name)
    if not value:
        raise PeerError(f"no {name}")
    return value
