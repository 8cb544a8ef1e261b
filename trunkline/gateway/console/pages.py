"""The console's pages: templates, static files, and the headers that every page carries.

Pages are whole without scripts; htmx (console.js has its settings) saves reloads and keeps what is live alive. Nothing
is inline and nothing comes from elsewhere, so the policy allows only files of ours.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from trunkline.gateway.console.forms import identity, line_diff

HERE = Path(__file__).parent
ROOT = "/console"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self)",
    # With no-referrer a browser says `Origin: null` of our own forms (Fetch, "append a request Origin header").
    "Referrer-Policy": "same-origin",
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

NAV = (
    ("", "Today"),
    ("live", "Live calls"),
    ("calls", "Calls"),
    ("numbers", "Numbers"),
    ("routes", "Routes"),
    ("agents", "Agents"),
    ("hours", "Opening hours"),
    ("trunks", "Trunks"),
    ("budgets", "Budgets"),
    ("webhooks", "Webhooks"),
    ("people", "People and keys"),
    ("changes", "Changes"),
    ("tenant", "Settings"),
)


class Pages:
    def __init__(self) -> None:
        self._files = {path.name: path.read_bytes() for path in (HERE / "static").iterdir() if path.suffix in _TYPES}
        self._marks = {name: sha256(body).hexdigest()[:12] for name, body in self._files.items()}
        self.environment = Environment(
            loader=PackageLoader("trunkline.gateway.console"),
            autoescape=select_autoescape(("html",), default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.globals.update(static=self.static, nav=NAV, root=ROOT, identity=identity, line_diff=line_diff)

    def static(self, name: str) -> str:
        """Its address, which is another one when the file is another."""
        return f"{ROOT}/static/{name}?{self._marks[name]}"

    def answer(
        self,
        request: Request,
        template: str,
        context: Mapping[str, Any],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """`context` as the template wants it. Of whoever has signed in, `who` and `csrf` come with the request."""
        state = request.scope.get("state", {})
        more = {
            "who": state.get("principal"),
            "csrf": state.get("csrf", ""),
            "path": request.url.path,
            "said": "",
            "is_fragment": request.headers.get("hx-request") == "true" and "hx-boosted" not in request.headers,
        }
        html = self.environment.get_template(template).render({**more, **context})
        return HTMLResponse(html, status, {**_HEADERS, **(headers or {})})

    @staticmethod
    def with_call_page() -> dict[str, str]:
        """Headers of a page that shows the gateway's own call page in a frame."""
        return {"Content-Security-Policy": f"{POLICY}; frame-src 'self'"}

    def static_routes(self) -> list[Route]:
        async def file(request: Request) -> Response:
            name = request.path_params["name"]
            body = self._files.get(name)
            if body is None:
                return Response(status_code=404)
            headers = {"Cache-Control": "public, max-age=31536000, immutable"}
            return Response(body, media_type=_TYPES[Path(name).suffix], headers=headers)

        return [Route(f"{ROOT}/static/{{name}}", file, methods=["GET"])]
