"""WHIP (RFC 9725), in both directions: our answer speaks as well as it listens.

POST /whip          offer -> 201, Location, ETag, Link: ICE servers, the answer
PATCH its Location  trickled candidates, If-Match -> 204
DELETE it           the call ends -> 200
OPTIONS             what is taken, and to other pages' origins whether they may; Link: ICE servers, to who may call

The token of a session is a Bearer token. The Location is known only to who made the offer, so nothing else is asked of
PATCH and DELETE. Errors are problem documents (RFC 9457) with a `code`.
"""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from trunkline.gateway.api.problems import problem
from trunkline.gateway.entering import AGAIN, RETRY_S, Origins
from trunkline.gateway.webrtc.desk import WebRtcDesk
from trunkline.ports import Refuse
from trunkline.settings import is_loopback

WHIP_PATH = "/whip"
SDP, FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
_STATUS = {
    "malformed": 400,
    "no_audio": 422,
    "no_codec": 422,
    "not_supported": 422,
    "too_large": 413,
    "no_restart": 422,
    "unknown": 404,
    "ended": 410,
    "wrong_etag": 412,
    "no_token": 401,
    "no_sessions": 401,
    "token_malformed": 401,
    "token_forged": 401,
    "token_expired": 401,
    "token_used": 401,
    "session_over": 401,
    "unknown_agent": 422,
}
_NO_TOKEN = Refuse("no_token", "a join token is needed, as Authorization: Bearer TOKEN")
RESUME_TOKEN = "Resume-Token"
"""Of a 201: the token that `joined` brings, for who never gets so far as to open the data channel."""
_EXPOSED = f"ETag, Link, Location, {RESUME_TOKEN}, Retry-After"
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "POST, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
    "Access-Control-Max-Age": "600",
}


def whip_routes(desk: WebRtcDesk, origins: Sequence[str], ours: str) -> list[Route]:
    """`origins`: of pages elsewhere that may call, `ours` is of our own."""
    pages = Origins(ours, origins)

    def cors(request: Request) -> dict[str, str] | None:
        """Headers for the page that asks; None: it may not."""
        origin = request.headers.get("origin")
        came_to = request.url.scheme, request.headers.get("host", "")
        if pages.own(origin, *came_to):
            return {}
        if not pages.allow(origin, *came_to):
            return None
        assert origin is not None
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED, "Vary": "Origin"}

    def refused(refuse: Refuse, headers: dict[str, str]) -> Response:
        status = 503 if refuse.code in AGAIN else _STATUS.get(refuse.code, 403)
        more = {"Retry-After": str(RETRY_S)} if status == 503 else {}
        if status == 401:
            more["WWW-Authenticate"] = 'Bearer realm="trunkline"'
        return problem(status, refuse.why, headers | more, code=refuse.code)

    def with_servers(response: Response) -> Response:
        for link in desk.server_links:
            response.headers.append("Link", link)
        return response

    async def before(request: Request, headers: dict[str, str]) -> Response:
        """OPTIONS: who may call learns the ICE servers (RFC 9725 4.6), which are needed before the offer. A preflight
        brings no token: it learns none."""
        response = Response(status_code=204, headers=headers | _PREFLIGHT | {"Accept-Post": SDP})
        token = _token(request)
        if "access-control-request-method" in request.headers or _is_rebound(request, token):
            return response
        refuse = await desk.may_call(token)
        if refuse is not None:
            return refused(refuse, headers) if token else response
        response.headers["Cache-Control"] = "no-store"
        return with_servers(response)

    async def offered(request: Request) -> Response:
        headers = cors(request)
        if headers is None:
            return _foreign()
        if request.method == "OPTIONS":
            return await before(request, headers)
        if not _is(request, SDP):
            return problem(415, f"the offer is {SDP}", headers | {"Accept-Post": SDP}, code="not_sdp")
        token = _token(request)
        if _is_rebound(request, token):
            return refused(_NO_TOKEN, headers)
        opened = await desk.open(await request.body(), token)
        if isinstance(opened, Refuse):
            return refused(opened, headers)
        response = Response(opened.answer, 201, headers | {"ETag": opened.etag}, SDP)
        response.headers["Location"] = f"{WHIP_PATH}/{opened.id}"
        if opened.resume_token:
            response.headers[RESUME_TOKEN] = opened.resume_token
            response.headers["Cache-Control"] = "no-store"
        return with_servers(response)

    async def changed(request: Request) -> Response:
        headers = cors(request)
        if headers is None:
            return _foreign()
        name = request.path_params["name"]
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers | _PREFLIGHT | {"Accept-Patch": FRAGMENT})
        if request.method == "DELETE":
            if not desk.hang_up(name):
                return refused(Refuse("unknown", "no such session"), headers)
            return Response(status_code=200, headers=headers)
        if not _is(request, FRAGMENT):
            return problem(415, f"candidates are {FRAGMENT}", headers | {"Accept-Patch": FRAGMENT}, code="not_sdp")
        etag = request.headers.get("if-match")
        if etag is None:
            return problem(428, "If-Match is needed, with the ETag of the answer", headers, code="no_etag")
        refuse = desk.trickle(name, etag.strip(), await request.body())
        return Response(status_code=204, headers=headers) if refuse is None else refused(refuse, headers)

    return [
        Route(WHIP_PATH, offered, methods=["POST", "OPTIONS"]),
        Route(WHIP_PATH + "/{name}", changed, methods=["PATCH", "DELETE", "OPTIONS"]),
    ]


def _foreign() -> Response:
    return problem(403, "pages of this origin may not call: devices.origins", code="origin")


def _is_rebound(request: Request, token: str) -> bool:
    """Open means loopback; without a token and by another name this is DNS rebinding."""
    return not token and not is_loopback(request.url.hostname or "")


def _is(request: Request, media_type: str) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == media_type


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
