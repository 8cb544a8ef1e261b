"""Whether a number can be called: checks over facts that somebody gathered. Plain: nobody is asked here.

    for check in [*gateway_checks(gateway), *trunk_checks(trunk), *number_checks(number, gateway)]: ...

A fact that could not be had is None, and its check a warning that says so: not knowing is not "fine". `fail`: calls do
not come, or do not go. `warn`: they do, and something will hurt, or nobody could tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trunkline.numbers.carriers.account import NotTaken, Owned, Unknown
from trunkline.numbers.carriers.owning import mispointed, pointing
from trunkline.numbers.e164 import Number

Verdict = Literal["ok", "warn", "fail"]
PORTS_A_CALL = 2


@dataclass(frozen=True, slots=True)
class Check:
    verdict: Verdict
    what: str
    """What was looked at: `public URL`, `trunk office`, `+14155550100`."""
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """An HTTP request of ours for /readyz."""

    status: int | None
    """None: there was no answer."""
    why: str = ""
    """Then, or what the gateway says itself: draining, database..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayFacts:
    public_url: str | None
    carrier_token: bool
    """Webhooks are signed."""
    api_key: bool
    here: Answered | None = None
    """Asked at the address it listens on; None: not asked."""
    outside: Answered | None = None
    """Asked by its public URL."""
    max_calls: int
    rtp_ports: int
    outbound_countries: Sequence[str] = ()
    tenant_budget: bool = False
    """There is a bound on what a day may cost."""
    stir_keys: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkFacts:
    name: str
    state: Literal["up", "down", "unknown"] | None = None
    """By its answers to OPTIONS, as the gateway has it; None: nobody asked the gateway."""
    registered: bool | None = None
    registers: bool = False
    calls_out: bool = True
    """It has a host."""
    calls_in: bool = True
    """It has peers."""
    codecs: Sequence[str] = ()
    profile_codecs: Sequence[str] = ()
    """What the far side takes; none: nobody said."""
    tls: bool = False
    tls_certificate: bool = False
    listens_outside: bool = False
    """sip.host is not loopback."""
    stir_sign: bool = False
    ping: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFacts:
    number: Number
    over: str
    """`twilio`, or the trunk's name; empty: of none."""
    owned: Owned | NotTaken | Unknown | None = None
    """By the account's own list; None: it does not have it."""
    asked: bool = False
    """Whether the account was asked at all."""
    trunk: TrunkFacts | None = None
    trunk_takes: bool = True
    """The number is among the trunk's `numbers`, or it names none."""
    agent: str | None = None
    """Who would answer."""
    agent_ready: bool | None = None
    agent_why: str = ""


# --- the gateway ----------------------------------------------------------------------------------------------------


def gateway_checks(facts: GatewayFacts, *, webhooks: bool = True) -> list[Check]:
    """`webhooks`: a carrier is to ask us over HTTPS; not where all numbers come over SIP."""
    found = [_here(facts)]
    if webhooks:
        found += [_public(facts), _token(facts)]
    calls = facts.rtp_ports // PORTS_A_CALL
    if calls < facts.max_calls:
        found.append(
            Check(
                "warn",
                "RTP ports",
                f"enough for {calls} SIP calls, and limits.max_calls is {facts.max_calls}",
                "widen sip.rtp_port_min to sip.rtp_port_max",
            )
        )
    if not facts.tenant_budget:
        found.append(
            Check("warn", "budget", "nothing bounds what a day may cost", "set money.tenant_day_usd (docs/costs.md)")
        )
    return found


def _here(facts: GatewayFacts) -> Check:
    if facts.here is None:
        return Check("warn", "gateway", "was not asked", "")
    if facts.here.status is None:
        return Check("fail", "gateway", f"does not answer ({facts.here.why})", "start it: trunkline serve")
    if facts.here.status != 200:
        return Check("fail", "gateway", f"takes no calls: {facts.here.why or facts.here.status}", "trunkline doctor")
    return Check("ok", "gateway", "answers, and takes calls")


def _public(facts: GatewayFacts) -> Check:
    what, url = "public URL", facts.public_url
    if not url:
        return Check("fail", what, "is not set: no carrier can reach us", "set http.public_url to an https address")
    if not url.startswith("https://"):
        return Check("fail", what, f"{url} is no https address", "carriers want https: docs/numbers.md")
    if facts.outside is None:
        return Check("warn", what, f"{url} was not asked", "")
    if facts.outside.status is None:
        remedy = "look at the name in the DNS, the certificate, the proxy in front and the firewall"
        return Check("fail", what, f"{url} does not answer from here ({facts.outside.why})", remedy)
    if facts.outside.status in (404, 502, 504):
        remedy = "let the proxy lead to http.port (deploy/Caddyfile)"
        return Check("fail", what, f"{url} answers {facts.outside.status}: something else is there", remedy)
    if facts.outside.status not in (200, 503):
        return Check("warn", what, f"{url} answers {facts.outside.status}", "is that this gateway?")
    return Check("ok", what, f"{url} leads to a gateway, as seen from here")


def _token(facts: GatewayFacts) -> Check:
    if not facts.carrier_token:
        return Check(
            "fail", "webhooks", "are not signed: twilio.auth_token is not set", "set it: Twilio console, Account"
        )
    if not facts.api_key:
        return Check("warn", "webhooks", "are signed; /v1 is open: http.api_key is not set", "openssl rand -hex 24")
    return Check("ok", "webhooks", "are signed with the account's token")


# --- a trunk --------------------------------------------------------------------------------------------------------


def trunk_checks(facts: TrunkFacts, gateway: GatewayFacts) -> list[Check]:
    what = f"trunk {facts.name}"
    found = [_state(facts, what)]
    if facts.registers:
        found.append(_registered(facts, what))
    if facts.calls_in and not facts.listens_outside:
        found.append(Check("warn", what, "SIP listens on this machine alone", 'set sip.host = "0.0.0.0"'))
    if not facts.calls_in:
        found.append(Check("warn", what, "takes no calls: it has no peers", "list the far side's addresses in peers"))
    common = [codec for codec in facts.codecs if codec in facts.profile_codecs]
    if facts.profile_codecs and facts.codecs and not common:
        theirs = ", ".join(facts.profile_codecs)
        found.append(Check("fail", what, f"no codec in common: it takes {theirs}", "add one of them to codecs"))
    if facts.tls and not facts.tls_certificate:
        found.append(Check("warn", what, "calls by TLS, and takes no calls by it", "set sip.tls_cert and sip.tls_key"))
    if facts.calls_out and not gateway.outbound_countries:
        found.append(Check("warn", what, "no call of ours goes: outbound.allow is empty", 'outbound.allow = ["US"]'))
    elif facts.calls_out and "US" in gateway.outbound_countries and not (facts.stir_sign and gateway.stir_keys):
        found.append(
            Check(
                "warn",
                what,
                "calls of ours are not signed by us (STIR/SHAKEN): the carrier must, or they may show as spam",
                "ask the carrier, or set stir.keys and stir_sign (docs/stir.md)",
            )
        )
    return found


def _state(facts: TrunkFacts, what: str) -> Check:
    if not facts.calls_out:
        return Check("ok", what, "takes calls only")
    if facts.state is None:
        return Check("warn", what, "nobody could say whether it answers", "start the gateway: trunkline serve")
    if facts.state == "down":
        remedy = "see the gateway's log: address, firewall, certificate, or whether the far side knows us"
        return Check("fail", what, "does not answer OPTIONS", remedy)
    if facts.state == "unknown":
        if not facts.ping:
            return Check("warn", what, "is not asked (ping_s = 0)", "call it: trunkline dial")
        return Check("warn", what, "has not answered yet", "look again in half a minute")
    return Check("ok", what, "answers")


def _registered(facts: TrunkFacts, what: str) -> Check:
    if facts.registered is None:
        return Check("warn", what, "nobody could say whether we are registered", "start the gateway: trunkline serve")
    if not facts.registered:
        return Check("fail", what, "we are not registered", "see auth_username, auth_password and registrar")
    return Check("ok", what, "we are registered")


# --- a number -------------------------------------------------------------------------------------------------------


def number_checks(facts: NumberFacts, gateway: GatewayFacts, countries: Sequence[str] = ()) -> list[Check]:
    """`countries`: those the tenant's numbers may be of; none: all."""
    what = facts.number.e164
    found = []
    if countries and facts.number.country not in countries:
        where = facts.number.country or "no country"
        found.append(Check("fail", what, f"is of {where}, which is not allowed", f"allowed: {', '.join(countries)}"))
    if facts.over == "twilio":
        found += _at_twilio(facts, gateway, what)
    elif facts.trunk is None:
        remedy = "point it at us (trunkline numbers point), or name its trunk"
        found.append(Check("fail", what, "is at no carrier and on no trunk that is set up here", remedy))
    elif not facts.trunk_takes:
        detail = f"is none of the numbers of the trunk {facts.trunk.name}: its calls are answered 404"
        found.append(Check("fail", what, detail, f"add it to sip.trunks.{facts.trunk.name}.numbers"))
    else:
        found.append(Check("ok", what, f"comes over the trunk {facts.trunk.name}"))
    found.append(_agent(facts, what))
    return found


def _at_twilio(facts: NumberFacts, gateway: GatewayFacts, what: str) -> list[Check]:
    if not facts.asked:
        remedy = "set twilio.account_sid and a login"
        return [Check("warn", what, "Twilio was not asked: there is no account in the settings", remedy)]
    owned = facts.owned
    if isinstance(owned, NotTaken):
        remedy = "see twilio.account_sid, api_key_sid and auth_token" if owned.unauthorized else "try again"
        return [Check("warn", what, f"Twilio does not say: {owned.why}", remedy)]
    if isinstance(owned, Unknown):
        return [Check("warn", what, f"Twilio does not say: {owned.why}", "try again")]
    if owned is None:
        return [Check("fail", what, "is no number of the Twilio account", "trunkline numbers buy, or another account")]
    if "voice" not in owned.capabilities:
        return [Check("fail", what, "cannot take calls (no voice)", "buy one that can")]
    if not gateway.public_url:
        return [Check("fail", what, "cannot be pointed at us: there is no http.public_url", "set it")]
    wrong = mispointed(owned, pointing(gateway.public_url))
    if not wrong:
        return [Check("ok", what, "is pointed at us")]
    again = f"trunkline numbers point {what}"
    if owned.trunk_id or owned.application_id:
        again += " --detach, or leave it there and set that trunk up here"
    # Only the voice URL decides whether a call comes; what else is wrong shows later.
    fatal = any("voice URL" in each or "fax" in each for each in wrong)
    return [Check("fail" if fatal else "warn", what, "; ".join(wrong), again)]


def _agent(facts: NumberFacts, what: str) -> Check:
    if facts.agent is None:
        return Check("fail", what, "nobody would answer", "give it an AI agent")
    if facts.agent_ready is None:
        return Check("warn", what, f"{facts.agent} would answer; nobody could say whether it is ready", "")
    if not facts.agent_ready:
        return Check("fail", what, f"{facts.agent} is not ready: {facts.agent_why}", "trunkline doctor")
    return Check("ok", what, f"{facts.agent} answers")


def worst(checks: Sequence[Check]) -> Verdict:
    ranks: Mapping[Verdict, int] = {"ok": 0, "warn": 1, "fail": 2}
    return max((check.verdict for check in checks), key=ranks.__getitem__, default="ok")
