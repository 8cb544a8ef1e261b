"""/v1/compliance, /v1/consent, /v1/dnc: may we, who agreed to what, and who is not to be called.

The decision of a call that is only asked about is the one that the call would get, and nothing is noted for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Protocol, get_args

from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.compliance.answers import call_facts, explained, previewed
from trunkline.compliance.imports import Asked, BadFile, asked
from trunkline.compliance.office import Known, Office
from trunkline.errors import StoreError
from trunkline.gateway.api.control import Body, Moment, read_json
from trunkline.gateway.api.orders import E164_PATTERN, REGION_PATTERN, wrong_fields
from trunkline.gateway.api.principal import only_default, tenant_of
from trunkline.gateway.dialling import DialOrder
from trunkline.ports import CapturedBy, ConsentForm, Decision, Evidence, Grant, Purpose, Revocation, Technology
from trunkline.types import Direction, TenantId

MAX_TEXT = 4000
MAX_EVIDENCE = 16
MAX_SEVERAL = 8
SETTLE_S = 2.0
AHEAD = timedelta(minutes=5)  # of our clock, for what is dated by another's

MAX_ROWS = 1000  # of a preview: each asks the database
_WANTED = {
    "direction": "inbound or outbound",
    "from": "a number as +COUNTRY NUMBER without spaces",
    "to": "a number, of at most 32 characters",
    "purpose": "marketing, transactional or informational",
    "region": "a country or its part, such as DE, US-CA",
    "zone": "a time zone as IANA names it",
    "at": "a time with its zone, such as 2026-11-22T15:00:00Z; of what was said, one that is past",
    "calls": f"1 to {MAX_ROWS} of to, purpose, region, zone",
    "event": "grant or revoke",
    "subject": "a number as +COUNTRY NUMBER without spaces",
    "form": "of a grant: express_written, express_oral or implied",
    "technologies": "of a grant at least one of artificial_voice, autodialer, recording, transcript, ai_processing, "
    "training",
    "wording": "of a grant: what was agreed to, word for word",
    "wording_version": "of a grant: which version of it",
    "number": "a number as +COUNTRY NUMBER without spaces",
    "via": f"one of {', '.join(get_args(CapturedBy))}",
    "purposes": "some of marketing, transactional, informational",
    "channels": "some of voice, sms, email",
    "seller": "at most 200 characters",
    "jurisdiction": "at most 200 characters",
    "evidence": f"at most {MAX_EVIDENCE} of kind, uri, sha256 (64 hexadecimal digits)",
    "valid_from": "a time with its zone",
    "valid_until": "a time with its zone, after valid_from",
    "verbatim": f"at most {MAX_TEXT} characters",
    "do_not_call": "true or false",
}


class Ledger(Protocol):
    async def export(self, tenant: TenantId, subject: str) -> dict[str, Any]: ...

    async def erase(self, tenant: TenantId, subject: str, at: datetime) -> int: ...

    async def verify(self, tenant: TenantId) -> Any: ...


class Lists(Protocol):
    async def add(
        self, tenant: TenantId, name: str, numbers: Sequence[str], at: datetime, source: str, region: str = ""
    ) -> None: ...

    async def start_again(self, tenant: TenantId) -> bool: ...

    async def summary(self, tenant: TenantId) -> list[dict[str, Any]]: ...


_Number = Annotated[str, Field(pattern=E164_PATTERN)]
_Short = Annotated[str, Field(max_length=200)]


class CheckBody(Body):
    direction: Direction = "outbound"
    from_number: _Number | None = Field(default=None, alias="from")
    to: Annotated[str, Field(max_length=32)] | None = None
    purpose: Purpose | None = None
    region: Annotated[str, Field(pattern=REGION_PATTERN)] | None = None
    zone: _Short | None = None
    at: Moment | None = None


class PreviewBody(Body):
    calls: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_ROWS)
    at: Moment | None = None


class EvidenceBody(Body):
    kind: _Short = ""
    uri: Annotated[str, Field(max_length=MAX_TEXT)] = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


class SaidBody(Body):
    event: Literal["grant", "revoke"]
    subject: _Number
    at: Moment | None = None
    via: CapturedBy = "api"
    technologies: list[Technology] = Field(default_factory=list, max_length=MAX_SEVERAL)
    purposes: list[Purpose] = Field(default_factory=list, max_length=MAX_SEVERAL)
    seller: _Short = ""
    form: ConsentForm | None = None
    channels: tuple[Literal["voice", "sms", "email"], ...] = Field(
        default=("voice",), strict=False, min_length=1, max_length=MAX_SEVERAL
    )
    wording: Annotated[str, Field(max_length=MAX_TEXT)] = ""
    wording_version: _Short = ""
    evidence: list[EvidenceBody] = Field(default_factory=list, max_length=MAX_EVIDENCE)
    jurisdiction: _Short = ""
    valid_from: Moment | None = None
    valid_until: Moment | None = None
    verbatim: Annotated[str, Field(max_length=MAX_TEXT)] = ""
    do_not_call: bool = False


class ListedBody(Body):
    number: _Number


class ComplianceDesk:
    """`calls.Counsel`, and what the routes do."""

    def __init__(
        self, office: Office, ledger: Ledger, lists: Lists, clock: Clock, settle: Callable[[], Awaitable[None]]
    ) -> None:
        """`settle`: what was noted is in the ledger when it returns. Raises StoreError."""
        self.office, self.ledger, self.lists, self.clock, self.settle = office, ledger, lists, clock, settle

    async def prepare(self, order: DialOrder) -> DialOrder:
        known = await self.office.know(order.to_number, order.purpose, region=order.region, zone=order.zone, tries=True)
        return replace(order, standing=known.standing, attempt=known.attempt)

    async def refused(self, order: DialOrder) -> None:
        await self.office.forget_attempt(Known(order.standing, order.attempt))

    async def decide(
        self,
        direction: Direction,
        from_number: str | None,
        to: str | None,
        purpose: Purpose | None,
        region: str | None,
        zone: str | None,
        at: datetime,
    ) -> Decision:
        other = to if direction == "outbound" else from_number
        known = await self.office.know(other or "", purpose, region=region, zone=zone, now=at)
        return self.office.decide(call_facts(direction, from_number, to, purpose, known.standing), at)

    async def preview(self, rows: Sequence[Asked], at: datetime) -> dict[str, Any]:
        """A number that comes twice is counted as tried by its first."""
        decided: list[tuple[Asked, Decision]] = []
        for row in rows:
            decided.append((row, await self.decide("outbound", None, row.to, row.purpose, row.region, row.zone, at)))
        return previewed(decided, at)


def compliance_routes(desk: ComplianceDesk) -> list[Route]:
    """What asks the office is for its tenant: the one that this gateway calls out for."""

    async def check(request: Request) -> Response:
        only_default(request, "decisions")
        asking = await read_json(request, CheckBody, _WANTED)
        if isinstance(asking, Response):
            return asking
        row = _asked({"to": asking.to or "?", "zone": asking.zone or ""})
        if isinstance(row, Response):
            return row
        decision = await desk.decide(
            asking.direction,
            asking.from_number,
            asking.to,
            asking.purpose,
            asking.region,
            row.zone,
            asking.at or desk.clock.wall(),
        )
        return JSONResponse(explained(decision))

    async def preview(request: Request) -> Response:
        only_default(request, "decisions")
        asking = await read_json(request, PreviewBody, _WANTED)
        if isinstance(asking, Response):
            return asking
        rows = []
        for number, call in enumerate(asking.calls, 1):
            if unknown := call.keys() - {"to", "purpose", "region", "zone"}:
                return wrong_fields("invalid_fields", {"calls": f"row {number}: {len(unknown)} unknown fields"})
            row = _asked(call, number)
            if isinstance(row, Response):
                return row
            rows.append(row)
        return JSONResponse(await desk.preview(rows, asking.at or desk.clock.wall()))

    async def tables(request: Request) -> Response:
        office = desk.office
        return JSONResponse(
            {
                "in_force": office.policy.in_force,
                "tables": office.policy.tables.versions,
                "problem": office.problem,
                "lists": await desk.lists.summary(tenant_of(request)),
            }
        )

    async def verify(request: Request) -> Response:
        return JSONResponse(asdict(await desk.ledger.verify(tenant_of(request))))

    async def note(request: Request) -> Response:
        tenant = only_default(request, "consent")
        said = await read_json(request, SaidBody, _WANTED)
        if isinstance(said, Response):
            return said
        now = desk.clock.wall()
        at = said.at or now
        if at > now + AHEAD:
            return wrong_fields("invalid_fields", {"at": _WANTED["at"]})
        if said.event == "revoke":
            desk.office.revoke(
                Revocation(
                    tenant,
                    said.subject,
                    at,
                    said.via,
                    said.verbatim,
                    tuple(said.technologies),
                    tuple(said.purposes),
                    said.do_not_call,
                    said.seller,
                )
            )
        else:
            needed = ("form", "technologies", "wording", "wording_version")
            if missing := {name: _WANTED[name] for name in needed if not getattr(said, name)}:
                return wrong_fields("invalid_fields", missing)
            if said.valid_until is not None and said.valid_until <= (said.valid_from or at):
                return wrong_fields("invalid_fields", {"valid_until": _WANTED["valid_until"]})
            desk.office.grant(_grant(said, tenant, at))
        try:
            async with asyncio.timeout(SETTLE_S):
                await desk.settle()
        except (StoreError, TimeoutError):  # it is on disk, and counts
            return JSONResponse({"event": said.event, "at": at.isoformat()}, 202)
        return JSONResponse({"event": said.event, "at": at.isoformat()}, 201)

    async def export(request: Request) -> Response:
        return JSONResponse(await desk.ledger.export(tenant_of(request), _subject(request)))

    async def erase(request: Request) -> Response:
        return JSONResponse(
            {"erased": await desk.ledger.erase(tenant_of(request), _subject(request), desk.clock.wall())}
        )

    async def add(request: Request) -> Response:
        tenant = only_default(request, "do-not-call lists")
        listed = await read_json(request, ListedBody, _WANTED)
        if isinstance(listed, Response):
            return listed
        await desk.lists.add(tenant, "company", [listed.number], desk.clock.wall(), "api")
        await desk.office.refresh()
        return JSONResponse({"list": "company"}, 201)

    async def listed(request: Request) -> Response:
        only_default(request, "do-not-call lists")
        known = await desk.office.know(_subject(request), None, now=desk.clock.wall())
        lists = asdict(known.standing.lists)
        lists["as_of"] = {name: at.isoformat() for name, at in known.standing.lists.as_of.items()}
        return JSONResponse(lists)

    async def stop(request: Request) -> Response:
        tenant = only_default(request, "calls out")
        await desk.lists.add(tenant, "stop", ["*"], desk.clock.wall(), "api")
        await desk.office.refresh()
        return JSONResponse({"stopped": True})

    async def go_on(request: Request) -> Response:
        tenant = only_default(request, "calls out")
        await desk.lists.start_again(tenant)
        await desk.office.refresh()
        return JSONResponse({"stopped": False})

    return [
        Route("/v1/compliance/check", check, methods=["POST"]),
        Route("/v1/compliance/preview", preview, methods=["POST"]),
        Route("/v1/compliance/tables", tables, methods=["GET"]),
        Route("/v1/compliance/ledger", verify, methods=["GET"]),
        Route("/v1/compliance/stop", stop, methods=["PUT"]),
        Route("/v1/compliance/stop", go_on, methods=["DELETE"]),
        Route("/v1/consent", note, methods=["POST"]),
        Route("/v1/consent/{subject}", export, methods=["GET"]),
        Route("/v1/consent/{subject}", erase, methods=["DELETE"]),
        Route("/v1/dnc", add, methods=["POST"]),
        Route("/v1/dnc/{subject}", listed, methods=["GET"]),
    ]


def _asked(values: dict[str, Any], row: int = 1) -> Asked | Response:
    try:
        return asked(row, values)
    except BadFile as bad:
        return wrong_fields("invalid_fields", {m.field: f"row {m.row}: {m.wanted}" for m in bad.mistakes})


def _grant(said: SaidBody, tenant: TenantId, at: datetime) -> Grant:
    assert said.form is not None
    return Grant(
        tenant,
        said.subject,
        said.form,
        at,
        said.via,
        tuple(said.technologies),
        said.wording,
        said.wording_version,
        tuple(said.purposes),
        said.channels,
        said.seller,
        None,
        tuple(Evidence(e.kind, e.uri, e.sha256) for e in said.evidence),
        said.jurisdiction,
        said.valid_from,
        said.valid_until,
    )


def _subject(request: Request) -> str:
    subject: str = request.path_params["subject"]
    digits = subject[1:]
    if not (subject.startswith("+") and digits.isascii() and digits.isdigit() and 7 <= len(digits) <= 15):
        raise HTTPException(404, "no such number")
    return subject
