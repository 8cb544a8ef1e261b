"""The facts of `numbers.readiness`, gathered: the gateway asked over HTTP, the carrier over its API, the rest read from
the settings. Nothing is changed anywhere. Every question has a deadline, and what is not answered is a fact as well."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from trunkline.gateway.sip.profiles import PROFILES
from trunkline.gateway.sip.trunks import matches
from trunkline.numbers.carriers.account import NumberAccount, Owned
from trunkline.numbers.e164 import Number
from trunkline.numbers.readiness import (
    Answered,
    Check,
    GatewayFacts,
    NumberFacts,
    TrunkFacts,
    gateway_checks,
    number_checks,
    trunk_checks,
)
from trunkline.settings import Settings, SipTrunk, is_loopback
from trunkline.settings.addresses import origin

ASK_S = 10.0
MAX_WHY_CHARS = 200
TWILIO = "twilio"


async def look(
    settings: Settings,
    numbers: Sequence[Number],
    account: NumberAccount | None,
    agent: str | None,
    countries: Sequence[str] = (),
) -> list[Check]:
    """Of the gateway, of every trunk, and of `numbers`. `agent`: who answers them, as far as the settings say."""
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(gateway_facts(settings))
        views = group.create_task(_trunk_views(settings))
        owned = [group.create_task(account.find(number.e164)) for number in numbers] if account else []
    facts = asked.result()
    trunks = [
        trunk_facts(settings, name, written, views.result().get(name)) for name, written in settings.sip.trunks.items()
    ]
    webhooks = bool(settings.twilio.auth_token or settings.http.public_url) or not trunks
    checks = gateway_checks(facts, webhooks=webhooks)
    for trunk in trunks:
        checks += trunk_checks(trunk, facts)
    for at, number in enumerate(numbers):
        known = number_facts(settings, number, trunks)
        if account is not None:
            known = at_account(settings, replace(known, owned=owned[at].result(), asked=True), trunks)
        known = replace(known, agent=agent, **_agent(facts))
        checks += number_checks(known, facts, countries)
    return checks


async def gateway_facts(settings: Settings) -> GatewayFacts:
    here, outside = await asyncio.gather(
        _ready(local_origin(settings), verify=False),
        _ready(settings.http.public_url, verify=True) if settings.http.public_url else _nobody(),
    )
    return replace(known_facts(settings), here=here, outside=outside)


def known_facts(settings: Settings) -> GatewayFacts:
    """What nobody need be asked for."""
    sip = settings.sip
    return GatewayFacts(
        public_url=settings.http.public_url,
        carrier_token=bool(settings.twilio.auth_token),
        api_key=bool(settings.http.api_key),
        max_calls=settings.limits.max_calls,
        rtp_ports=sip.rtp_port_max - sip.rtp_port_min + 1 if sip.trunks else 2 * settings.limits.max_calls,
        outbound_countries=settings.outbound.allow,
        tenant_budget=settings.money.tenant_day_usd is not None,
        stir_keys=bool(settings.stir.keys),
    )


def trunk_facts(settings: Settings, name: str, written: SipTrunk, view: Mapping[str, Any] | None) -> TrunkFacts:
    """`view`: its entry of /v1/trunks."""
    state = view.get("state") if view else None
    return TrunkFacts(
        name=name,
        state=state if state in ("up", "down", "unknown") else None,
        registered=view.get("registered") if view else None,
        registers=written.registers,
        calls_out=written.host is not None,
        calls_in=bool(written.peers),
        codecs=written.codecs or settings.sip.codecs,
        profile_codecs=PROFILES[written.profile].codecs,
        tls=written.transport == "tls",
        tls_certificate=settings.sip.tls_cert is not None,
        listens_outside=not is_loopback(settings.sip.host),
        stir_sign=written.stir_sign,
        ping=written.ping_s > 0,
    )


def number_facts(settings: Settings, number: Number, trunks: Sequence[TrunkFacts]) -> NumberFacts:
    """Whose it is by the settings: the trunk that names it, else the only one that names none, else Twilio's."""
    written = settings.sip.trunks
    by_name = {trunk.name: trunk for trunk in trunks}
    naming = [name for name, each in written.items() if any(matches(p, number.e164) for p in each.numbers)]
    unnamed = [name for name, each in written.items() if not each.numbers]
    if name := (naming or (unnamed if len(unnamed) == 1 else [""]))[0]:
        return NumberFacts(number=number, over=name, trunk=by_name[name])
    return NumberFacts(number=number, over=TWILIO if settings.twilio.auth_token else "")


def at_account(settings: Settings, known: NumberFacts, trunks: Sequence[TrunkFacts]) -> NumberFacts:
    """The account's word goes before: what it has comes by webhook, but for a number on an Elastic SIP trunk that is
    set up here."""
    elastic = next((t for t in trunks if settings.sip.trunks[t.name].profile == "twilio_elastic_sip"), None)
    if not isinstance(known.owned, Owned):
        return known
    if known.owned.trunk_id and elastic is not None:
        named = settings.sip.trunks[elastic.name].numbers
        takes = not named or any(matches(pattern, known.number.e164) for pattern in named)
        return replace(known, over=elastic.name, trunk=elastic, trunk_takes=takes)
    return replace(known, over=TWILIO, trunk=None)


def _agent(facts: GatewayFacts) -> dict[str, Any]:
    """All of a gateway's agents are ready when it is."""
    if facts.here is None or facts.here.status is None:
        return {"agent_ready": None}
    return {"agent_ready": facts.here.status == 200, "agent_why": facts.here.why}


def local_origin(settings: Settings) -> str:
    """Where the gateway of these settings listens, asked from this machine."""
    http = settings.http
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.host, http.host)
    return origin("https" if http.tls_cert else "http", host, http.port)


async def _nobody() -> None:
    return None


async def _ready(base: str, *, verify: bool) -> Answered:
    try:
        async with asyncio.timeout(ASK_S), httpx.AsyncClient(trust_env=False, verify=verify) as http:
            answer = await http.get(f"{base}/readyz")
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
        return Answered(None, _why(error))
    try:
        said = answer.json()
        reasons = said.get("reasons") if isinstance(said, dict) else None
    except ValueError:
        reasons = None
    return Answered(answer.status_code, ", ".join(map(str, reasons or []))[:MAX_WHY_CHARS])


async def _trunk_views(settings: Settings) -> Mapping[str, Mapping[str, Any]]:
    """By name; empty where the gateway does not say."""
    if not settings.sip.trunks:
        return {}
    headers = {"Authorization": f"Bearer {settings.api_keys[0]}"} if settings.api_keys else {}
    try:
        async with asyncio.timeout(ASK_S), httpx.AsyncClient(trust_env=False, verify=False) as http:
            answer = await http.get(f"{local_origin(settings)}/v1/trunks", headers=headers)
            listed = answer.json()["trunks"] if answer.status_code == 200 else []
            return {str(each["name"]): each for each in listed}
    except (httpx.HTTPError, TimeoutError, OSError, ValueError, KeyError, TypeError):
        return {}


def _why(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:MAX_WHY_CHARS]
