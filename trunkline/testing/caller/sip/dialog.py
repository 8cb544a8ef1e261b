"""One call of ours as SIP sees it (RFC 3261, the caller's side). A plain core: messages and `now` in, effects out.

`invite` once, then `receive` for every message of its Call-ID and `due` when `next_at` has come; `hang_up` at any time.
What they return is to be done in order. `Ended` comes exactly once; a few late messages are still answered after it.

    calling ─► proceeding ─► confirmed ─► ending ─► ended
       └───────────┴──── a final refusal, or CANCEL and its 487 ───► ended

The races of RFC 3261 9.1: CANCEL goes out only after a provisional answer; a 200 that crosses it is acknowledged and
ended with BYE. A repeated 200 is acknowledged again; the 200 of another fork is acknowledged and ended.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from trunkline.errors import PeerError
from trunkline.testing.caller.sip import sdp
from trunkline.testing.caller.sip.digest import Challenge, Credentials, authorization, choose
from trunkline.testing.caller.sip.message import BRANCH_COOKIE, Message, Uri, bracketed, parse_uri, respond

T1_S, T2_S = 0.5, 4.0  # RFC 3261 17.1.1.1
GIVE_UP_S = 64 * T1_S
MAX_CHALLENGES = 2  # one, and one more when the nonce was stale
KEPT_REPLIES = 32
ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY"
USER_AGENT = "trunkline-caller"

State = Literal["new", "calling", "proceeding", "confirmed", "ending", "ended"]
Address = tuple[str, int]
By = Literal["caller", "far_end", "refused", "cancelled", "lost"]


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes
    to: Address | None = None
    """None: the first hop."""


@dataclass(frozen=True, slots=True)
class Progress:
    code: int
    reason: str
    session: sdp.Session | None = None
    """Early media."""


@dataclass(frozen=True, slots=True)
class Answered:
    session: sdp.Session


@dataclass(frozen=True, slots=True)
class MediaChanged:
    """A re-INVITE or UPDATE of the far end, already answered."""

    session: sdp.Session


@dataclass(frozen=True, slots=True)
class Ended:
    by: By
    code: int
    """The final status; 200 for a BYE; 0 when none ever came."""
    reason: str = ""


Effect = Send | Progress | Answered | MediaChanged | Ended


@dataclass(frozen=True, slots=True)
class Via:
    """Where our socket is, as the far end should answer it."""

    host: str
    port: int
    transport: Literal["udp", "tcp", "tls"] = "udp"

    @property
    def reliable(self) -> bool:
        return self.transport != "udp"


@dataclass(slots=True)
class _Peer:
    """The far half of a dialog: RFC 3261 12.1.2."""

    to: str
    tag: str
    target: Uri
    routes: tuple[str, ...]

    @property
    def hop(self) -> Address | None:
        """Where requests go; None where that is a name, which only the first hop can know."""
        uri = parse_uri(self.routes[0]) if self.routes else self.target
        try:
            ip_address(uri.host)
        except ValueError:
            return None
        return uri.address


@dataclass(slots=True)
class _Client:
    """A request of ours that waits for its final answer."""

    request: Message
    data: bytes
    to: Address | None
    resend_at: float | None
    gives_up_at: float | None
    interval_s: float = T1_S


@dataclass(slots=True)
class _Reply:
    """A 200 to an INVITE of theirs, repeated until its ACK (RFC 3261 13.3.1.4)."""

    cseq: int
    data: bytes
    to: Address
    resend_at: float
    gives_up_at: float
    interval_s: float = T1_S


class Dialog:
    def __init__(
        self,
        target: Uri,
        from_user: str,
        via: Via,
        media: sdp.LocalMedia,
        *,
        credentials: Credentials | None = None,
        late_offer: bool = False,
        headers: Sequence[tuple[str, str]] = (),
        token: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        """`late_offer`: the INVITE carries no SDP, the ACK answers what the 200 offers. `headers`: more of them."""
        self._target, self._via, self._media, self._token = target, via, media, token
        self._credentials, self._late_offer, self._more = credentials, late_offer, tuple(headers)
        self.call_id = f"{token()}@{via.host}"
        self._tag = token()
        self._from = f"<{target.scheme}:{from_user}@{bracketed(via.host)}>;tag={self._tag}"
        self._to = f"<{target.scheme}:{target.user + '@' if target.user else ''}{bracketed(target.host)}>"
        transport = "" if via.transport == "udp" else f";transport={via.transport}"
        self._contact = f"<{target.scheme}:{from_user}@{bracketed(via.host)}:{via.port}{transport}>"
        self.state: State = "new"
        self.session: sdp.Session | None = None
        self.challenges = 0
        self.resent = 0
        """Messages sent again because no answer came in time."""
        self._cseq = 0
        self._peer: _Peer | None = None
        self._invite: _Client | None = None
        self._clients: dict[str, _Client] = {}  # by branch: BYE, CANCEL, INFO
        self._acks: dict[str, Send] = {}  # by branch and to-tag: sent again when the final answer is
        self._replies: dict[tuple[str, str], Send] = {}
        self._awaits_ack: _Reply | None = None
        self._authorization: tuple[str, str] | None = None
        self._cancelling = self._cancelled = False
        self._their_cseq = -1
        self._sdp_version = 1

    @property
    def next_at(self) -> float | None:
        """When `due` is to be called."""
        times: list[float] = []
        for client in (self._invite, *self._clients.values()):
            if client is not None:
                times += [t for t in (client.resend_at, client.gives_up_at) if t is not None]
        if self._awaits_ack is not None:
            times += [self._awaits_ack.resend_at, self._awaits_ack.gives_up_at]
        return min(times, default=None)

    # --- what we begin --------------------------------------------------------------------------------------------

    def invite(self, now: float) -> list[Effect]:
        self.state = "calling"
        return self._send_invite(now)

    def _send_invite(self, now: float) -> list[Effect]:
        self._cseq += 1
        request = Message(method="INVITE", uri=str(self._target), headers=self._head("INVITE", self._cseq, self._to))
        request.headers += [("Contact", self._contact), ("Allow", ALLOW), *self._more]
        if self._authorization is not None:
            request.headers.append(self._authorization)
        if not self._late_offer:
            self._put_sdp(request, self._media.offer(self._sdp_version))
        self._invite = self._client(request, None, now)
        return [Send(self._invite.data)]

    def info(self, digit: str, now: float, duration_ms: int = 100) -> list[Effect]:
        """A digit as SIP INFO."""
        if self.state != "confirmed":
            return []
        request = self._inside("INFO")
        request.headers.append(("Content-Type", "application/dtmf-relay"))
        request.body = f"Signal={digit}\r\nDuration={duration_ms}\r\n".encode()
        return [self._start(request, now)]

    def hang_up(self, now: float) -> list[Effect]:
        """CANCEL or BYE, as is due. Idempotent."""
        if self.state == "confirmed":
            self.state = "ending"
            return [self._start(self._inside("BYE"), now)]
        self._cancelling = True
        return self._cancel(now) if self.state == "proceeding" else []

    def lost(self, why: str) -> list[Effect]:
        """The connection is gone."""
        return self._end("lost", 0, why)

    def _cancel(self, now: float) -> list[Effect]:
        invite = self._invite
        if invite is None or self._cancelled:
            return []
        self._cancelled = True
        cseq = invite.request.cseq[0]
        request = Message(method="CANCEL", uri=invite.request.uri, headers=self._head("CANCEL", cseq, self._to))
        request.headers[0] = invite.request.headers[0]  # RFC 3261 9.1: one Via, that of the INVITE
        invite.gives_up_at = now + GIVE_UP_S
        client = self._client(request, None, now)
        self._clients["CANCEL"] = client
        return [Send(client.data)]

    def _head(self, method: str, cseq: int, to: str) -> list[tuple[str, str]]:
        via = f"SIP/2.0/{self._via.transport.upper()} {bracketed(self._via.host)}:{self._via.port}"
        return [
            ("Via", f"{via};rport;branch={BRANCH_COOKIE}{self._token()}"),
            ("Max-Forwards", "70"),
            ("From", self._from),
            ("To", to),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
            ("User-Agent", USER_AGENT),
        ]

    def _inside(self, method: str, peer: _Peer | None = None, cseq: int | None = None) -> Message:
        """A request within the dialog (RFC 3261 12.2.1.1; every route is taken to be a loose one)."""
        peer = peer or self._peer
        assert peer is not None
        if cseq is None:
            self._cseq += 1
            cseq = self._cseq
        request = Message(method=method, uri=str(peer.target), headers=self._head(method, cseq, peer.to))
        request.headers += [("Route", route) for route in peer.routes]
        return request

    def _client(self, request: Message, to: Address | None, now: float) -> _Client:
        resend_at = None if self._via.reliable else now + T1_S
        return _Client(request, request.to_bytes(), to, resend_at, now + GIVE_UP_S)

    def _start(self, request: Message, now: float, peer: _Peer | None = None) -> Send:
        peer = peer or self._peer
        client = self._client(request, peer.hop if peer is not None else None, now)
        self._clients[request.branch] = client
        return Send(client.data, client.to)

    @staticmethod
    def _put_sdp(message: Message, body: bytes) -> None:
        message.headers.append(("Content-Type", "application/sdp"))
        message.body = body

    # --- time -----------------------------------------------------------------------------------------------------

    def due(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for key, client in [("INVITE", self._invite), *self._clients.items()]:
            if client is None:
                continue
            if client.gives_up_at is not None and now >= client.gives_up_at:
                effects += self._gave_up(key, client)
            elif client.resend_at is not None and now >= client.resend_at:
                ceiling = GIVE_UP_S if client is self._invite else T2_S  # timers A and E
                client.interval_s = min(client.interval_s * 2, ceiling)
                client.resend_at = now + client.interval_s
                self.resent += 1
                effects.append(Send(client.data, client.to))
        return effects + self._resend_reply(now)

    def _gave_up(self, key: str, client: _Client) -> list[Effect]:
        if client is self._invite:
            self._invite = None
            return self._end("cancelled" if self._cancelled else "lost", 0, "no answer to INVITE")
        del self._clients[key]
        ours = client.request.method == "BYE" and self.state == "ending"  # not that of a fork
        return self._end("caller", 0, "no answer to BYE") if ours else []

    def _resend_reply(self, now: float) -> list[Effect]:
        reply = self._awaits_ack
        if reply is None:
            return []
        if now >= reply.gives_up_at:
            self._awaits_ack = None
            return self.hang_up(now)  # RFC 3261 13.3.1.4
        if self._via.reliable and now < reply.gives_up_at:
            reply.resend_at = reply.gives_up_at
            return []
        if now < reply.resend_at:
            return []
        reply.interval_s = min(reply.interval_s * 2, T2_S)
        reply.resend_at = now + reply.interval_s
        self.resent += 1
        return [Send(reply.data, reply.to)]

    def _end(self, by: By, code: int, reason: str = "") -> list[Effect]:
        if self.state == "ended":
            return []
        self.state = "ended"
        self._invite = self._awaits_ack = None
        return [Ended(by, code, reason)]

    # --- what comes -----------------------------------------------------------------------------------------------

    def receive(self, message: Message, source: Address, now: float) -> list[Effect]:
        """A message of this Call-ID. What no rule knows is ignored; raises PeerError for a broken one."""
        if message.method:
            return self._request(message, source, now)
        number, method = message.cseq
        if method == "INVITE":
            return self._invite_answer(message, number, now)
        return self._answer(message, method, now)

    def _answer(self, message: Message, method: str, now: float) -> list[Effect]:
        key = "CANCEL" if method == "CANCEL" else message.branch
        client = self._clients.get(key)
        if client is None or client.request.method != method:
            return []
        if message.status < 200:
            client.interval_s = T2_S  # RFC 3261 17.1.2.2
            return []
        del self._clients[key]
        if message.status in (401, 407) and self._authorize(message, method, client.request.uri):
            assert self._authorization is not None
            request = self._inside(method)
            request.headers += [h for h in client.request.headers if h[0] == "Content-Type"] + [self._authorization]
            request.body = client.request.body
            return [self._start(request, now)]
        ours = method == "BYE" and self.state == "ending"  # not that of a fork
        return self._end("caller", message.status, message.reason) if ours else []

    def _invite_answer(self, message: Message, number: int, now: float) -> list[Effect]:
        status = message.status
        repeated = self._acks.get(message.branch + (message.tag("To") if status < 300 else ""))
        if repeated is not None and status >= 200:
            return [repeated]
        current = self._invite
        if 200 <= status < 300:
            return self._accepted(message, number, now)
        if current is None or message.branch != current.request.branch:
            return []
        if status < 200:
            return self._provisional(message, current, now)
        ack = Message(method="ACK", uri=current.request.uri, headers=self._head("ACK", number, message.need("To")))
        ack.headers[0] = current.request.headers[0]  # RFC 3261 17.1.1.3
        self._acks[message.branch] = send = Send(ack.to_bytes())
        self._invite = None
        if status in (401, 407) and not self._cancelling and self._authorize(message, "INVITE", current.request.uri):
            return [send, *self._send_invite(now)]
        by: By = "cancelled" if self._cancelled and status == 487 else "refused"
        return [send, *self._end(by, status, message.reason)]

    def _provisional(self, message: Message, current: _Client, now: float) -> list[Effect]:
        current.resend_at = None
        if not self._cancelled:
            current.gives_up_at = None  # how long it may ring is the caller's own affair
        if self.state == "calling":
            self.state = "proceeding"
        effects: list[Effect] = []
        if message.status > 100:
            session = sdp.parse(message.body, self._media.laws) if message.body else None
            self.session = session or self.session
            effects.append(Progress(message.status, message.reason, session))
        return effects + (self._cancel(now) if self._cancelling else [])

    def _accepted(self, message: Message, number: int, now: float) -> list[Effect]:
        contact = message.all("Contact")
        target = parse_uri(contact[0]) if contact else self._target
        routes = tuple(reversed(message.all("Record-Route")))
        peer = _Peer(message.need("To"), message.tag("To"), target, routes)
        fork = self._peer is not None or self.state == "ended"
        problem, session = "", None
        try:
            session = sdp.parse(message.body, self._media.laws) if message.body or self._late_offer else self.session
            problem = "" if session is not None else "200 without SDP"
        except PeerError as error:
            problem = str(error)
        ack = self._inside("ACK", peer, number)
        if self._authorization is not None:
            ack.headers.append(self._authorization)
        if self._late_offer and session is not None:
            self._put_sdp(ack, self._media.answer(session, self._sdp_version))
        send = self._acks[message.branch + peer.tag] = Send(ack.to_bytes(), peer.hop)
        if fork:
            return [send, self._start(self._inside("BYE", peer), now, peer)]
        self._invite, self._peer, self.session, self.state = None, peer, session, "confirmed"
        if session is None or problem:
            bye = self.hang_up(now)
            return [send, *bye, *self._end("refused", message.status, problem)]
        if self._cancelling:
            return [send, *self.hang_up(now)]
        return [send, Answered(session)]

    def _authorize(self, message: Message, method: str, uri: str) -> bool:
        """Answer the challenge in what is sent next. False: not again, or not possible."""
        proxy = message.status == 407
        challenge: Challenge | None = choose(message.all("Proxy-Authenticate" if proxy else "WWW-Authenticate"))
        first = self._authorization is None or method != "INVITE"
        if self._credentials is None or challenge is None or not (first or challenge.stale):
            return False
        self.challenges += 1
        if self.challenges > MAX_CHALLENGES:
            return False
        value = authorization(challenge, self._credentials, method, uri, self._token())
        self._authorization = ("Proxy-Authorization" if proxy else "Authorization", value)
        return True

    # --- requests of the far end ----------------------------------------------------------------------------------

    def _request(self, request: Message, source: Address, now: float) -> list[Effect]:
        number, method = request.cseq
        if method == "ACK":
            return self._acknowledged(request, number)
        key = (request.branch, method)
        if key in self._replies:
            return [self._replies[key]]
        status, reason, more, body, effects = self._judge(request, number, now)
        response = respond(request, status, reason, to_tag=self._tag, more=more)
        if body:
            self._put_sdp(response, body)
        send = Send(response.to_bytes(), source)
        if len(self._replies) >= KEPT_REPLIES:
            del self._replies[next(iter(self._replies))]
        self._replies[key] = send
        if method == "INVITE" and status == 200:
            self._awaits_ack = _Reply(number, send.data, source, now + T1_S, now + GIVE_UP_S)
        return [send, *effects]

    def _judge(
        self, request: Message, number: int, now: float
    ) -> tuple[int, str, list[tuple[str, str]], bytes, list[Effect]]:
        """Status, reason, headers, SDP, and what it means to us."""
        peer, method = self._peer, request.method.upper()
        ours = request.tag("To") == self._tag and (peer is None or request.tag("From") == peer.tag)
        if not ours or (self.state in ("new", "ended") and method != "OPTIONS"):
            return 481, "Call Does Not Exist", [], b"", []
        if number < self._their_cseq:
            return 500, "Out Of Order", [], b"", []  # RFC 3261 12.2.2
        self._their_cseq = number
        match method:
            case "BYE":
                over = [] if self.state == "ending" else self._end("far_end", 200, request.get("Reason") or "")
                return 200, "OK", [], b"", over
            case "INVITE" | "UPDATE":
                return self._renegotiate(request)
            case "OPTIONS":
                return 200, "OK", [("Allow", ALLOW), ("Accept", "application/sdp")], b"", []
            case "INFO" | "NOTIFY" | "MESSAGE":
                return 200, "OK", [], b"", []
            case "CANCEL":
                return 481, "Nothing To Cancel", [], b"", []
            case "REFER":
                return 603, "Decline", [], b"", []
        return 405, "Method Not Allowed", [("Allow", ALLOW)], b"", []

    def _renegotiate(self, request: Message) -> tuple[int, str, list[tuple[str, str]], bytes, list[Effect]]:
        method, more = request.method.upper(), [("Contact", self._contact), ("Allow", ALLOW)]
        if method == "INVITE" and self.state != "confirmed":
            return 491, "Request Pending", [], b"", []
        contact = request.all("Contact")
        if contact and self._peer is not None:
            self._peer.target = parse_uri(contact[0])  # a target refresh (RFC 3261 12.2.2)
        if not request.body:
            offer = self._media.offer(self._next_version()) if method == "INVITE" else b""
            return 200, "OK", more, offer, []
        try:
            session = sdp.parse(request.body, self._media.laws)
        except PeerError:
            return 488, "Not Acceptable Here", [], b"", []
        self.session = session
        return 200, "OK", more, self._media.answer(session, self._next_version()), [MediaChanged(session)]

    def _next_version(self) -> int:
        self._sdp_version += 1
        return self._sdp_version

    def _acknowledged(self, request: Message, number: int) -> list[Effect]:
        if self._awaits_ack is None or number != self._awaits_ack.cseq:
            return []
        self._awaits_ack = None
        if not request.body:
            return []
        self.session = sdp.parse(request.body, self._media.laws)
        return [MediaChanged(self.session)]
