"""One call's signalling against a far end of a few lines, on a clock moved by hand."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest

from trunkline.errors import PeerError
from trunkline.testing.caller.sip import sdp
from trunkline.testing.caller.sip.dialog import (
    GIVE_UP_S,
    Answered,
    Dialog,
    Effect,
    Ended,
    MediaChanged,
    Progress,
    Send,
    Via,
)
from trunkline.testing.caller.sip.digest import Credentials
from trunkline.testing.caller.sip.message import Message, parse, parse_uri, respond

SOURCE = ("192.0.2.2", 5060)
SDP = sdp.LocalMedia("192.0.2.2", 4444).offer()
HELD = SDP.replace(b"sendrecv", b"sendonly")


class Rig:
    def __init__(self, transport: Any = "udp", **options: Any) -> None:
        self.now = 100.0
        numbers = count()
        self.dialog = Dialog(
            parse_uri("sip:bob@192.0.2.2"),
            "alice",
            Via("192.0.2.1", 5070, transport),
            sdp.LocalMedia("192.0.2.1", 4000),
            token=lambda: f"t{next(numbers)}",
            **options,
        )
        self.sent: list[Message] = []
        self.hops: list[tuple[str, int] | None] = []
        self.events: list[Effect] = []
        self.take(self.dialog.invite(self.now))

    def take(self, effects: Sequence[Effect]) -> "Rig":
        for effect in effects:
            if isinstance(effect, Send):
                self.sent.append(parse(effect.data))
                self.hops.append(effect.to)
            else:
                self.events.append(effect)
        return self

    def answer(self, status: int, reason: str = "X", *, to: int = -1, tag: str = "bob1", **more: Any) -> "Rig":
        """To the message number `to` of those sent."""
        headers = [(name.replace("_", "-"), value) for name, value in more.items() if name != "body"]
        response = respond(self.sent[to], status, reason, to_tag=tag, more=headers)
        response.body = more.get("body", b"")
        return self.take(self.dialog.receive(parse(response.to_bytes()), SOURCE, self.now))

    def answered(self, **more: Any) -> "Rig":
        return self.answer(200, "OK", Contact="<sip:bob@192.0.2.9:5090>", body=SDP, **more)

    def asks(self, method: str, cseq: int, body: bytes = b"", *, branch: str = "", tag: str = "bob1") -> "Rig":
        request = Message(method=method, uri="sip:alice@192.0.2.1", body=body)
        request.headers = [
            ("Via", f"SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK{branch or f'{method}{cseq}'}"),
            ("From", f"<sip:bob@192.0.2.2>;tag={tag}"),
            ("To", self.sent[0].need("From")),
            ("Call-ID", self.dialog.call_id),
            ("CSeq", f"{cseq} {method}"),
        ]
        return self.take(self.dialog.receive(request, SOURCE, self.now))

    def wait(self, seconds: float) -> "Rig":
        end = self.now + seconds
        while (at := self.dialog.next_at) is not None and at <= end:
            self.now = max(self.now, at)
            self.take(self.dialog.due(self.now))
        self.now = end
        return self

    def hang_up(self) -> "Rig":
        return self.take(self.dialog.hang_up(self.now))

    @property
    def said(self) -> list[str]:
        return [m.what for m in self.sent]

    @property
    def last(self) -> Message:
        return self.sent[-1]


def test_a_call_is_offered_answered_acknowledged_and_hung_up() -> None:
    rig = Rig()
    assert rig.last.body == sdp.LocalMedia("192.0.2.1", 4000).offer()
    rig.answer(100, tag="").answer(180, "Ringing").answered(Record_Route="<sip:192.0.2.7;lr>, <sip:192.0.2.8;lr>")
    assert rig.events[0] == Progress(180, "Ringing")
    assert isinstance(rig.events[1], Answered)
    assert rig.events[1].session.port == 4444
    ack = rig.last
    assert (ack.method, ack.uri, ack.cseq) == ("ACK", "sip:bob@192.0.2.9:5090", (1, "ACK"))
    assert ack.all("Route") == ["<sip:192.0.2.8;lr>", "<sip:192.0.2.7;lr>"]
    assert ack.branch != rig.sent[0].branch
    assert ack.tag("To") == "bob1"
    assert rig.hops[-1] == ("192.0.2.8", 5060)
    rig.hang_up().answer(200)
    assert rig.sent[-1].cseq == (2, "BYE")
    assert rig.events[-1] == Ended("caller", 200, "X")
    assert rig.dialog.next_at is None


def test_an_unanswered_invite_is_repeated_ever_more_rarely_and_given_up() -> None:
    rig = Rig().wait(GIVE_UP_S)
    assert rig.said == ["INVITE"] * 7  # timer A: 0.5, 1.5, 3.5, 7.5, 15.5, 31.5
    assert rig.dialog.resent == 6
    assert rig.events == [Ended("lost", 0, "no answer to INVITE")]


def test_over_a_stream_nothing_is_repeated() -> None:
    rig = Rig("tcp").wait(GIVE_UP_S)
    assert rig.said == ["INVITE"]
    assert rig.events == [Ended("lost", 0, "no answer to INVITE")]
    assert rig.sent[0].need("Via").startswith("SIP/2.0/TCP")
    assert "transport=tcp" in rig.sent[0].need("Contact")


def test_it_may_ring_as_long_as_it_likes() -> None:
    rig = Rig().answer(180).wait(600)
    assert rig.said == ["INVITE"]
    assert rig.dialog.state == "proceeding"


def test_a_repeated_200_is_acknowledged_again_and_changes_nothing() -> None:
    rig = Rig().answered().answered(to=0)
    assert rig.said == ["INVITE", "ACK", "ACK"]
    assert rig.sent[1] == rig.sent[2]
    assert len(rig.events) == 1


@pytest.mark.parametrize("status", [302, 404, 486, 503, 603])
def test_a_refusal_is_acknowledged_within_its_transaction_as_often_as_it_comes(status: int) -> None:
    rig = Rig().answer(180).answer(status, "No", to=0).answer(status, "No", to=0)
    assert rig.said == ["INVITE", "ACK", "ACK"]
    assert rig.sent[1].branch == rig.sent[0].branch
    assert rig.events[-1] == Ended("refused", status, "No")
    assert len(rig.events) == 2


def test_a_challenge_is_answered_once() -> None:
    rig = Rig(credentials=Credentials("u", "p"))
    rig.answer(401, "Who", WWW_Authenticate='Digest realm="r",nonce="n",algorithm=MD5,qop="auth"')
    assert rig.said == ["INVITE", "ACK", "INVITE"]
    assert rig.last.cseq == (2, "INVITE")
    assert rig.last.branch != rig.sent[0].branch
    assert 'username="u"' in rig.last.need("Authorization")
    rig.answer(401, "Who", WWW_Authenticate='Digest realm="r",nonce="n2",algorithm=MD5')
    assert rig.events == [Ended("refused", 401, "Who")]


def test_a_stale_nonce_is_one_more_try() -> None:
    rig = Rig(credentials=Credentials("u", "p"))
    rig.answer(407, Proxy_Authenticate='Digest realm="r",nonce="n"')
    rig.answer(407, Proxy_Authenticate='Digest realm="r",nonce="m",stale=true')
    assert 'nonce="m"' in rig.last.need("Proxy-Authorization")
    rig.answered()
    assert 'nonce="m"' in rig.last.need("Proxy-Authorization")  # RFC 3261 22.1: the ACK shows them, too
    assert rig.dialog.state == "confirmed"


def test_a_challenge_without_credentials_is_a_refusal() -> None:
    rig = Rig().answer(401, "Who", WWW_Authenticate='Digest realm="r",nonce="n"')
    assert rig.events == [Ended("refused", 401, "Who")]


def test_hanging_up_while_it_rings_is_a_cancel() -> None:
    rig = Rig().answer(180).hang_up()
    cancel = rig.last
    assert (cancel.method, cancel.branch, cancel.cseq) == ("CANCEL", rig.sent[0].branch, (1, "CANCEL"))
    rig.answer(200).answer(487, "Terminated", to=0)
    assert rig.said == ["INVITE", "CANCEL", "ACK"]
    assert rig.events[-1] == Ended("cancelled", 487, "Terminated")


def test_a_cancel_waits_for_the_first_provisional() -> None:
    rig = Rig().hang_up()
    assert rig.said == ["INVITE"]
    rig.answer(100, tag="")
    assert rig.said == ["INVITE", "CANCEL"]


def test_a_200_that_crosses_the_cancel_is_acknowledged_and_ended() -> None:
    rig = Rig().answer(180).hang_up().answered(to=0)
    assert rig.said == ["INVITE", "CANCEL", "ACK", "BYE"]
    assert not any(isinstance(e, Answered) for e in rig.events)
    rig.answer(200)
    assert rig.events[-1] == Ended("caller", 200, "X")


def test_a_cancel_that_is_never_answered_ends() -> None:
    rig = Rig().answer(180).hang_up().wait(2 * GIVE_UP_S)
    assert rig.events[-1] == Ended("cancelled", 0, "no answer to INVITE")
    assert rig.dialog.next_at is None


def test_the_200_of_another_fork_is_acknowledged_and_ended_alone() -> None:
    rig = Rig().answered()
    rig.answered(to=0, tag="bob2")
    assert rig.said == ["INVITE", "ACK", "ACK", "BYE"]
    assert [m.tag("To") for m in rig.sent[2:]] == ["bob2", "bob2"]
    rig.answer(200)
    assert rig.dialog.state == "confirmed"


def test_early_media_is_told() -> None:
    rig = Rig().answer(183, "Progress", body=SDP).answer(200, "OK", to=0, Contact="<sip:bob@h>")
    progress, answered = rig.events
    assert isinstance(progress, Progress)
    assert isinstance(answered, Answered)
    assert progress.session == answered.session
    assert rig.hops[-1] is None  # the name in the contact is for the first hop to find


@pytest.mark.parametrize("body", [b"", SDP.replace(b"RTP/AVP", b"RTP/SAVP"), SDP.replace(b"0 8", b"3 4")])
def test_an_answer_that_cannot_be_is_acknowledged_and_ended(body: bytes) -> None:
    rig = Rig().answer(200, "OK", Contact="<sip:bob@192.0.2.9>", body=body)
    assert rig.said == ["INVITE", "ACK", "BYE"]
    (ended,) = rig.events
    assert isinstance(ended, Ended)
    assert (ended.by, ended.code) == ("refused", 200)


def test_a_late_offer_is_answered_in_the_ack() -> None:
    rig = Rig(late_offer=True)
    assert rig.last.body == b""
    rig.answered()
    assert sdp.parse(rig.last.body, ["mulaw"]).port == 4000
    assert isinstance(rig.events[-1], Answered)


def test_a_bye_of_the_far_end_is_answered_as_often_as_it_comes() -> None:
    rig = Rig().answered().asks("BYE", 5).asks("BYE", 5)
    assert rig.said[-2:] == ["200 OK", "200 OK"]
    assert [e for e in rig.events if isinstance(e, Ended)] == [Ended("far_end", 200)]
    assert rig.hops[-1] == SOURCE


def test_byes_that_cross_end_once() -> None:
    rig = Rig().answered().hang_up().asks("BYE", 5)
    assert rig.said[-2:] == ["BYE", "200 OK"]
    rig.answer(481, to=2)
    assert [e for e in rig.events if isinstance(e, Ended)] == [Ended("caller", 481, "X")]


def test_an_unanswered_bye_ends_all_the_same() -> None:
    rig = Rig().answered().hang_up().wait(GIVE_UP_S)
    assert rig.events[-1] == Ended("caller", 0, "no answer to BYE")
    assert rig.said.count("BYE") == 11  # timer E: doubling up to 4 s


def test_a_hold_is_answered_and_told() -> None:
    rig = Rig().answered().asks("INVITE", 5, HELD)
    assert b"a=recvonly" in rig.last.body
    assert b"o=caller 1 2 " in rig.last.body  # RFC 3264 8: another version
    assert isinstance(rig.events[-1], MediaChanged)
    assert not rig.events[-1].session.wants_ours
    rig.wait(3)
    assert rig.said.count("200 OK") == 3  # until its ACK: at once, after 0.5 and 1.5 s
    rig.asks("ACK", 5).wait(60)
    assert rig.said.count("200 OK") == 3


def test_a_200_that_is_never_acknowledged_ends_the_call() -> None:
    rig = Rig().answered().asks("INVITE", 5, HELD).wait(GIVE_UP_S)
    assert rig.last.method == "BYE"


def test_an_invite_without_an_offer_gets_ours_and_its_answer_counts() -> None:
    rig = Rig().answered().asks("INVITE", 5)
    assert b"m=audio 4000" in rig.last.body
    rig.asks("ACK", 5, HELD)
    assert isinstance(rig.events[-1], MediaChanged)


def test_an_offer_of_codecs_we_lack_is_refused_and_the_call_goes_on() -> None:
    rig = Rig().answered().asks("INVITE", 5, SDP.replace(b"0 8", b"3 4"))
    assert rig.last.status == 488
    assert rig.dialog.state == "confirmed"


@pytest.mark.parametrize(
    ("method", "status"),
    [("OPTIONS", 200), ("INFO", 200), ("UPDATE", 200), ("NOTIFY", 200), ("REFER", 603), ("PUBLISH", 405)],
)
def test_other_requests_are_answered(method: str, status: int) -> None:
    rig = Rig().answered().asks(method, 5)
    assert rig.last.status == status
    assert rig.dialog.state == "confirmed"


def test_a_request_of_another_dialog_or_out_of_order_is_refused() -> None:
    rig = Rig().answered().asks("BYE", 5, tag="mallory")
    assert rig.last.status == 481
    rig.asks("OPTIONS", 9).asks("BYE", 8)
    assert rig.last.status == 500
    assert rig.dialog.state == "confirmed"


def test_a_digit_goes_as_info_and_its_refusal_harms_nothing() -> None:
    rig = Rig().answered()
    rig.take(rig.dialog.info("5", rig.now))
    assert rig.last.method == "INFO"
    assert rig.last.body == b"Signal=5\r\nDuration=100\r\n"
    rig.answer(415)
    assert rig.dialog.state == "confirmed"
    assert rig.dialog.next_at is None


def test_a_lost_connection_ends_the_call_once() -> None:
    rig = Rig("tcp").answered()
    rig.take(rig.dialog.lost("gone")).take(rig.dialog.lost("gone"))
    assert rig.events[1:] == [Ended("lost", 0, "gone")]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.headers.clear(),
        lambda m: m.headers.__setitem__(slice(None), [h for h in m.headers if h[0] != "CSeq"]),
        lambda m: m.headers.append(("CSeq", "x")) or m.headers.__delitem__(4),
    ],
)
def test_a_broken_message_is_the_far_ends_mistake_and_leaves_the_call_as_it_was(
    spoil: Callable[[Message], None],
) -> None:
    rig = Rig().answered()
    message = respond(rig.sent[0], 180, "Ringing", to_tag="bob1")
    spoil(message)
    try:
        rig.take(rig.dialog.receive(message, SOURCE, rig.now))
    except PeerError:
        pass
    assert rig.dialog.state == "confirmed"
