"""The call page at `/`, and embed.js that shows it within other sites. Static files; what calls is POST /whip or WS
/ws/audio.

A client that does not ask for HTML gets the gateway's plain index, as before.
"""

from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_HERE = Path(__file__).parent
_JS = "text/javascript"
_FILES = {"call.js": _JS, "ways.js": _JS, "sound.js": _JS, "call.css": "text/css", "embed.js": _JS}


def page_routes(origins: Sequence[str], index: str) -> list[Route]:
    """`origins`: of sites that may show the page in a frame. `index`: for whoever wants no HTML."""
    html = (_HERE / "call.html").read_bytes()
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "media-src 'self' blob:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            " ".join(("frame-ancestors 'self'", *origins)),
        )
    )

    async def page(request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return Response(index, media_type="text/plain", headers={"Vary": "Accept"})
        headers = {"Content-Security-Policy": policy, "Permissions-Policy": "microphone=(self)", "Vary": "Accept"}
        return Response(html, media_type="text/html", headers=headers)

    def file(name: str, media_type: str) -> Route:
        body = (_HERE / name).read_bytes()
        headers = {"Cross-Origin-Resource-Policy": "cross-origin"} if name == "embed.js" else {}

        async def answer(request: Request) -> Response:
            return Response(body, media_type=media_type, headers=headers)

        return Route(f"/{name}", answer)

    return [Route("/", page), *(file(name, media_type) for name, media_type in _FILES.items())]
