"""What a transfer is asked to do and what became of it: targets, policy, and the timeline of every attempt."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trunkline.gateway.sip.message import number_of, parse_uri
from trunkline.ports import EndReason, Refuse
from trunkline.types import E164

Kind = Literal["auto", "blind", "attended", "bridged", "warm"]
"""auto: blind where the caller's leg can, bridged where it cannot or its carrier refuses."""
How = Literal["blind", "attended", "bridged", "warm"]
"""What an attempt was in the end."""

Result = Literal[
    "transferred",  # the caller is with the target
    "refused",  # by a rule of ours or by the leg itself: nothing was sent
    "refused_by_peer",  # the caller's carrier refused the REFER: nothing rang
    "busy",
    "no_answer",
    "rejected",
    "failed",
    "voicemail",
    "declined",  # the representative said no, pressed 2, or said nothing
    "target_lost",  # the target's leg went away before the two were joined
    "caller_left",
    "cancelled",
    "timed_out",  # sent, and how it went was never told: the target may have rung
    "carrier_vanished",  # the same, and the caller's leg is gone or mute as well
]

SURELY_DEAD: frozenset[Result] = frozenset(
    ("refused", "refused_by_peer", "busy", "no_answer", "rejected", "failed", "voicemail", "declined", "target_lost")
)
"""After these, once the target's leg is over, another target may be dialled: the first cannot answer any more."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient we are and what the parties hear. Durations in seconds.

    `refer_answer_s`: until the first answer to a REFER. Five retransmissions have gone out by then; PJSIP's own 408
    (Timer F of RFC 3261 17.1.2.2, 32 s) is too late for somebody who waits.
    `refer_final_s`: from its acceptance to the final NOTIFY, when nothing tells that the target rings. It must outlast
    ringing: RFC 3515 2.4.4 wants a NOTIFY at once, but session border controllers as they come (Oracle's with
    refer-notify-provisional unset) say nothing before the target has answered. FreeSWITCH waits 10 s, and loses those.
    `settle_s`: after a subscription that ended without a final status (RFC 3515 2.4.5 lets an implementation say
    `100 Trying` and no more): the carrier may still hang up the caller's leg, which says that it took the call over.
    """

    summary: str = ""
    """For the representative. Spoken by a warm transfer; by an attended one where there is any."""
    written: str = ""
    """The same to be read: sent along, not spoken."""
    prompt: str = "Press 1 or say yes to take the call. Press 2 or say no to decline."
    asks: int = 2
    """How often the prompt is said, in all, before an unclear answer is left at that."""
    accept_key: str = "1"
    decline_key: str = "2"
    yes: tuple[str, ...] = ("yes", "yeah", "yep", "sure", "okay", "ok", "put them through", "go ahead", "no problem")
    no: tuple[str, ...] = ("no", "nope", "not", "don't", "can't", "cannot", "decline", "busy", "later")
    agent_stays: bool = False
    """In the conversation, once caller and representative are joined."""
    waiting: Literal["music", "ringback"] = "music"
    early_media: bool = True
    """The caller of a bridged transfer hears the target's ringback and announcements."""
    after_target: Literal["end_call", "resume"] = "end_call"
    """When the representative hangs up first. A leg that is lost always brings the caller back."""
    ring_s: float = 30.0
    brief_s: float = 30.0
    accept_s: float = 15.0
    refer_answer_s: float = 15.0
    refer_final_s: float = 40.0
    settle_s: float = 10.0
    detect_voicemail: bool = True
    """Of a target we dial ourselves."""
    clear_s: float = 5.0
    """For a leg given up to be over, before the next target is dialled."""
    patience_s: float = 120.0
    """From the beginning; after it no further target is tried."""


@dataclass(frozen=True, slots=True)
class Target:
    """A person or group of the configuration."""

    name: str
    address: str = field(repr=False)
    """E.164, or a SIP URI. Not for logs."""
    kind: Kind | None = field(default=None, repr=False)
    """None: the transfer's."""
    policy: Policy | None = field(default=None, repr=False)
    """None: the transfer's."""

    @property
    def number(self) -> E164 | None:
        """That we may dial. None: a SIP URI that names no number, or digits that may be read in more than one way."""
        if self.address.startswith("+"):
            return E164(self.address)
        uri = parse_uri(self.address)
        return None if uri is None else number_of(uri)

    @property
    def dialled(self) -> str | None:
        """For the door: the number, or the digits that the URI's host would dial. None: it is called by a name."""
        if (number := self.number) is not None:
            return number
        uri = parse_uri(self.address)
        user = "" if uri is None else uri.user
        digits = "".join(c for c in user if c.isdigit())
        return digits if digits and not any(c.isalpha() for c in user) else None


_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)


def named_target(targets: Mapping[str, str], name: str) -> Target | Refuse:
    """As configured (`[targets]` of the agent's file): a name is all that a model or a caller may choose."""
    address = targets.get(name)
    if address is None:
        return Refuse("unknown_target", "there is no transfer target of this name")
    if _E164.fullmatch(address):
        return Target(name, address)
    uri = parse_uri(address)
    if uri is None or uri.scheme == "tel" or uri.headers or "method" in uri.params:
        return Refuse("bad_target", f"the target {name} is neither a number as +12025550123 nor a plain SIP URI")
    return Target(name, address)


@dataclass(slots=True)
class Attempt:
    """One target tried in one way. Times are monotonic seconds, None for what did not happen."""

    number: int
    """From 1 in each transfer."""
    target: str
    how: How
    asked_at: float
    """When the transfer began: the caller has waited since."""
    started_at: float
    trunk: str | None = None
    ringing_at: float | None = None
    answered_at: float | None = None
    accepted_at: float | None = None
    joined_at: float | None = None
    ended_at: float | None = None
    """When the result was known."""
    result: Result | None = None
    confirmed: bool = True
    """False: `transferred` is our reading of a carrier that took the call over and never said how it went."""
    sip_status: int | None = None
    """Final, of the INVITE or of the REFER; where a NOTIFY gave one, that."""
    q850_cause: int | None = None
    refer_status: int | None = None
    """How the REFER itself was answered."""
    detail: str = ""

    @property
    def time_to_human_ms(self) -> int | None:
        """From the beginning of the transfer until the caller was with the target."""
        return None if self.joined_at is None else round((self.joined_at - self.asked_at) * 1000)

    def event(self) -> dict[str, Any]:
        """For the call's record, as `CallEvent.data`. Times in ms since the attempt began."""
        times = {
            f"{name}_ms": None if at is None else round((at - self.started_at) * 1000)
            for name, at in (
                ("ringing", self.ringing_at),
                ("answered", self.answered_at),
                ("accepted", self.accepted_at),
                ("joined", self.joined_at),
                ("ended", self.ended_at),
            )
        }
        return {
            "attempt": self.number,
            "target": self.target,
            "how": self.how,
            "trunk": self.trunk,
            "result": self.result,
            "confirmed": self.confirmed,
            "sip_status": self.sip_status,
            "q850_cause": self.q850_cause,
            "refer_status": self.refer_status,
            "detail": self.detail,
            "waited_before_ms": round((self.started_at - self.asked_at) * 1000),
            **times,
            "time_to_human_ms": self.time_to_human_ms,
        }


@dataclass(frozen=True, slots=True)
class TransferFailed:
    """What the AI agent is told when it has the caller back."""

    reason: Result
    target: str
    """Name of the one tried last."""
    detail: str = ""
    attempts: int = 1


_RESULTS: Mapping[str, Result] = {
    "busy": "busy",
    "no_answer": "no_answer",
    "rejected": "rejected",
    "caller_hung_up": "no_answer",
    "media_lost": "target_lost",
    "refused": "refused",
}


def result_of(end: EndReason) -> Result:
    """Of a leg that was never answered."""
    return _RESULTS.get(end, "failed")


def understood(said: str, policy: Policy) -> Literal["yes", "no"] | None:
    """What a representative meant. A no outweighs a yes ("yes, but not now"); None is neither."""
    heard = re.findall(r"[\w']+", said.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    words = f" {' '.join(heard)} "
    agreed = False
    for phrase in sorted(policy.yes, key=len, reverse=True):  # "no problem" before the no in it
        if f" {phrase} " in words:
            agreed, words = True, words.replace(f" {phrase} ", " ")
    if any(f" {phrase} " in words for phrase in policy.no):
        return "no"
    return "yes" if agreed else None
