"""/v1/session, /v1/device, /v1/routing/hint: what a site's own backend asks for its devices.

`account_id` is whose a device is, as that backend names its accounts. A session is answered to its owner only: who asks
names the account, beside the API key that all of /v1 needs.
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Protocol

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.errors import StoreError
from trunkline.gateway.api.control import Body, read_json
from trunkline.gateway.api.orders import MAX_ATTRIBUTE_CHARS, MAX_ATTRIBUTES, NAME_PATTERN, TEXT_PATTERN, wrong_fields
from trunkline.gateway.api.principal import only_default, tenant_of
from trunkline.gateway.api.problems import problem
from trunkline.gateway.regions import Region
from trunkline.gateway.sessions.desk import Opened
from trunkline.gateway.sessions.session import Session
from trunkline.ports import Conflict, Device, Devices, Refuse, Registration
from trunkline.types import SessionId, TenantId

ID_PATTERN = r"^[A-Za-z0-9_.:@-]{1,128}$"
MAX_NAME_CHARS = 128
WHIP_PATH = "/whip"
WS_PATH = "/ws/audio"
RETRY_AFTER_S = 5
_UNKNOWN = Refuse("unknown_session", "there is no such session")
_BUSY = {"overloaded", "tenant_full", "draining", "sessions_full"}
_STATUS = {"unknown_session": 404, "not_owner": 403, "device_taken": 409}
_ID = "1 to 128 letters, digits and _ . : @ -"
_WANTED = {
    "device_id": _ID,
    "account_id": _ID,
    "agent": "the name of an agent of this gateway",
    "name": f"at most {MAX_NAME_CHARS} characters without line ends",
    "needs_arming": "true or false",
    "facts": f"at most {MAX_ATTRIBUTES} texts by name, of {MAX_ATTRIBUTE_CHARS} characters without line ends",
    "lat": "degrees from -90 to 90, with lon",
    "lon": "degrees from -180 to 180, with lat",
}

_Id = Annotated[str, Field(pattern=ID_PATTERN)]
_Name = Annotated[str, Field(pattern=NAME_PATTERN)]
_Text = Annotated[str, Field(pattern=TEXT_PATTERN, max_length=MAX_ATTRIBUTE_CHARS)]


class Desk(Protocol):
    """`sessions.desk`. Raises StoreError."""

    async def open(self, device_id: str, device_account: str, agent: str = "") -> Opened | Refuse: ...

    async def find(self, session_id: SessionId) -> Session | None: ...

    async def reopen(self, session_id: SessionId, device_account: str) -> Opened | Refuse: ...

    async def end(self, session_id: SessionId, device_account: str) -> Refuse | None: ...


class Map(Protocol):
    """`regions`."""

    @property
    def own(self) -> Region: ...

    def nearest(self, lat: float | None = None, lon: float | None = None) -> tuple[Region, float | None] | None: ...


class Rooms(Protocol):
    """`livekit.desk`, where there is a LiveKit server."""

    async def invite(self, session_id: SessionId, device_id: str, until: datetime) -> Mapping[str, object]:
        """What the answer says of the session's room: where it is, or why there is none. Within 2 s."""
        ...

    def forget(self, session_id: SessionId) -> None: ...


class NoRooms:
    async def invite(self, session_id: SessionId, device_id: str, until: datetime) -> Mapping[str, object]:
        return {}

    def forget(self, session_id: SessionId) -> None: ...


class _Open(Body):
    device_id: _Id
    account_id: _Id
    agent: Annotated[str, Field(pattern=TEXT_PATTERN, min_length=1, max_length=MAX_NAME_CHARS)] | None = None


class _Owner(Body):
    account_id: _Id


class _Register(Body):
    account_id: _Id
    name: Annotated[str, Field(pattern=TEXT_PATTERN, max_length=MAX_NAME_CHARS)] = ""
    needs_arming: bool = False
    facts: dict[_Name, _Text] = Field(default_factory=dict, max_length=MAX_ATTRIBUTES)


def device_routes(desk: Desk, devices: Devices, regions: Map, rooms: Rooms) -> list[Route]:
    async def open_session(request: Request) -> Response:
        only_default(request, "sessions")
        asked = await read_json(request, _Open, _WANTED)
        if isinstance(asked, Response):
            return asked
        return await opened(await desk.open(asked.device_id, asked.account_id, asked.agent or ""))

    async def another_token(request: Request) -> Response:
        asked = await read_json(request, _Owner, _WANTED)
        if isinstance(asked, Response):
            return asked
        if await found(request) is None:
            return _refusal(_UNKNOWN)
        return await opened(await desk.reopen(_session_id(request), asked.account_id))

    async def found(request: Request) -> Session | None:
        """Another tenant's is none."""
        session = await desk.find(_session_id(request))
        return session if session is not None and session.tenant == tenant_of(request) else None

    async def opened(made: Opened | Refuse) -> Response:
        if isinstance(made, Refuse):
            return _refusal(made)
        session = made.session
        shown = {
            "session_id": session.id,
            **_urls(regions.own),
            "join_token": made.join_token,
            "expires_at": made.expires.isoformat(),
            "region": regions.own.name,
            **await rooms.invite(session.id, session.device_id, made.expires),
        }
        return JSONResponse(shown, 201, {"Location": f"/v1/session/{session.id}"})

    async def get_session(request: Request) -> Response:
        owner = _owner(request)
        if isinstance(owner, Response):
            return owner
        session = await found(request)
        if session is None:
            return _refusal(_UNKNOWN)
        if session.device_account != owner:
            return _refusal(Refuse("not_owner", "this session is another account's"))
        return JSONResponse(_shown(session))

    async def end_session(request: Request) -> Response:
        owner = _owner(request)
        if isinstance(owner, Response):
            return owner
        if await found(request) is None:
            return _refusal(_UNKNOWN)
        refused = await desk.end(_session_id(request), owner)
        if refused is None:
            rooms.forget(_session_id(request))
        return _refusal(refused) if refused else Response(status_code=204)

    async def register(request: Request) -> Response:
        device_id = request.path_params["device_id"]
        asked = await read_json(request, _Register, _WANTED)
        if isinstance(asked, Response):
            return asked
        if not _is_id(device_id):
            return wrong_fields("invalid_fields", {"device_id": _ID})
        said = Registration(asked.name, asked.needs_arming, asked.facts)
        device = await devices.register(tenant_of(request), device_id, asked.account_id, said)
        if isinstance(device, Conflict):
            return _refusal(Refuse("device_taken", "this device is another account's"))
        return JSONResponse(_device(device), 201)

    async def hint(request: Request) -> Response:
        asked = _where(request)
        if isinstance(asked, Response):
            return asked
        device_id, lat, lon = asked
        if lat is None:
            lat, lon = await _place(devices, tenant_of(request), device_id)
        found = regions.nearest(lat, lon)
        if found is None:
            retry = {"Retry-After": str(RETRY_AFTER_S)}
            return problem(503, "no region is ready", retry, code="no_region")
        region, far = found
        shown = {"region": region.name, "url": region.url, **_urls(region), "session_url": f"{region.url}/v1/session"}
        return JSONResponse(shown | {"distance_km": None if far is None else round(far, 1)})

    session = "/v1/session/{session_id}"
    return [
        Route("/v1/session", open_session, methods=["POST"]),
        Route(session, get_session, methods=["GET"]),
        Route(session, end_session, methods=["DELETE"]),
        Route(f"{session}/token", another_token, methods=["POST"]),
        Route("/v1/device/{device_id}/register", register, methods=["POST"]),
        Route("/v1/routing/hint", hint, methods=["GET"]),
    ]


def _urls(region: Region) -> dict[str, str]:
    scheme, _, rest = region.url.partition("://")
    return {
        "webrtc_url": region.url + WHIP_PATH,
        "ws_url": f"{'wss' if scheme == 'https' else 'ws'}://{rest}{WS_PATH}",
    }


def _shown(session: Session) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "device_id": session.device_id,
        "account_id": session.device_account,
        "agent": session.agent or None,
        "region": session.region,
        "created_at": session.created.isoformat(),
        "joins": session.joins,
        "call_id": session.call_id,
        "ended_as": session.ended_as,
        "conversation": [
            {"at": said.at.isoformat(), "role": said.message.role, "text": said.message.text, "cut": said.message.cut}
            for said in session.said
            if said.message.role in ("caller", "agent") and said.message.text
        ],
    }


def _device(device: Device) -> dict[str, Any]:
    return {
        "device_id": device.id,
        "account_id": device.device_account,
        "name": device.name,
        "needs_arming": device.needs_arming,
        "facts": dict(device.facts),
        "created_at": device.created.isoformat(),
        "seen_at": device.seen.isoformat(),
    }


def _refusal(refused: Refuse) -> Response:
    if refused.code in _BUSY:
        return problem(503, refused.why, {"Retry-After": str(RETRY_AFTER_S)}, code=refused.code)
    if refused.code == "unknown_agent":
        return wrong_fields("unknown_agent", {"agent": _WANTED["agent"]})
    return problem(_STATUS.get(refused.code, 403), refused.why, code=refused.code)


def _session_id(request: Request) -> SessionId:
    return SessionId(request.path_params["session_id"][:128])


def _is_id(text: str) -> bool:
    return re.fullmatch(ID_PATTERN, text) is not None


def _owner(request: Request) -> str | Response:
    given = request.query_params.getlist("account_id")
    if len(given) != 1 or not _is_id(given[0]):
        return wrong_fields("invalid_fields", {"account_id": f"in the query: {_ID}"})
    return given[0]


def _where(request: Request) -> tuple[str, float | None, float | None] | Response:
    query = request.query_params
    device_id, lat, lon = query.get("device_id", ""), _degrees(query.get("lat"), 90), _degrees(query.get("lon"), 180)
    wrong = {} if _is_id(device_id) else {"device_id": _ID}
    wrong |= {name: _WANTED[name] for name, value in (("lat", lat), ("lon", lon)) if value is math.nan}
    if not wrong and (lat is None) != (lon is None):
        wrong["lat" if lat is None else "lon"] = _WANTED["lat" if lat is None else "lon"]
    return wrong_fields("invalid_fields", wrong) if wrong else (device_id, lat, lon)


def _degrees(text: str | None, most: float) -> float | None:
    """math.nan itself: they are none."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if abs(value) <= most else math.nan


async def _place(devices: Devices, tenant: TenantId, device_id: str) -> tuple[float | None, float | None]:
    """Where the device said it was when it registered, by its facts `lat` and `lon`. A database that is away tells
    nothing."""
    try:
        device = await devices.get(tenant, device_id)
    except StoreError:
        return None, None
    facts: Mapping[str, str] = {} if device is None else device.facts
    lat, lon = _degrees(facts.get("lat"), 90), _degrees(facts.get("lon"), 180)
    return (None, None) if lat is None or lon is None or math.nan in (lat, lon) else (lat, lon)
