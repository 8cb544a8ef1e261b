"""What each page of the desk shares: who may see it, what a refusal looks like, a form that is read and its token.

A page without somebody who is signed in leads to the sign-in. A POST has the token of its session (`csrf_token`), or it
is refused here, whatever stands before us.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from trunkline.errors import StoreError
from trunkline.gateway.console import forms
from trunkline.gateway.console.pages import ROOT, Pages
from trunkline.identity import Principal, Scope
from trunkline.owned import DeskError

log = logging.getLogger(__name__)

CSRF_FIELD = "csrf_token"
MAX_PART_BYTES = 4 * 1024 * 1024
"""Of one field: a file of numbers, a desk."""
SAID: Mapping[str, str] = {
    "made": "It is made.",
    "saved": "Saved.",
    "same": "Nothing was different: nothing is changed.",
    "deleted": "Deleted.",
    "published": "Published. New calls get this version.",
    "rolled": "Rolled back. New calls get that version.",
    "imported": "Imported.",
    "applied": "Applied.",
    "outage": "The outage switch is on: no caller reaches an agent.",
    "normal": "The outage switch is off: calls are answered as ever.",
    "sent": "It is on its way again.",
    "out": "Signed out everywhere else.",
}

Endpoint = Callable[["Asked"], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a page, of somebody who may see it."""

    request: Request
    who: Principal
    form: Mapping[str, Any] = field(default_factory=dict)
    """Of a POST: its fields by path (forms.nested)."""
    files: Mapping[str, UploadFile] = field(default_factory=dict)
    do: str = "save"
    """The button."""

    @property
    def key(self) -> str:
        return str(self.request.path_params["key"])

    @property
    def version(self) -> int | None:
        """That the form was made of."""
        text = str(self.form.get("at_version", ""))
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None

    @property
    def fields(self) -> dict[str, Any]:
        """The resource's, without the form's own."""
        return {name: value for name, value in self.form.items() if name not in (CSRF_FIELD, "at_version")}

    def query(self, name: str, most: int = 100) -> str:
        return self.request.query_params.get(name, "")[:most]


class Edge:
    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def show(
        self,
        asked: Asked,
        template: str,
        context: Mapping[str, Any],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        said = SAID.get(asked.request.query_params.get("said", ""), "")
        more = {"said": said, "write": asked.who.may("write"), "admin": asked.who.may("admin")}
        return self.pages.answer(asked.request, template, {**more, **context}, status, headers)

    def get(self, path: str, endpoint: Endpoint, scope: Scope = "read") -> Route:
        return Route(f"{ROOT}/{path}", self._of(endpoint, scope), methods=["GET"])

    def post(self, path: str, endpoint: Endpoint, scope: Scope = "write") -> Route:
        return Route(f"{ROOT}/{path}", self._of(endpoint, scope, changes=True), methods=["POST"])

    def _of(
        self, endpoint: Endpoint, scope: Scope, *, changes: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            who: Principal | None = request.scope.get("state", {}).get("principal")
            if who is None:
                return _sign_in(request)
            asked = Asked(request, who)
            try:
                if not who.may(scope):
                    return self._refusal(asked, 403, _MAY_NOT[scope])
                if changes:
                    asked = await _read(request, who)
                return await endpoint(asked)
            except DeskError as error:
                return self._refusal(asked, _STATUS.get(error.code, 422), error.why)
            except StoreError as error:
                log.error("%s %s: %s", request.method, request.url.path, error)
                return self._refusal(asked, 503, "The database is away. Calls go on. Please try again in a moment.")
            except HTTPException as error:
                return self._refusal(asked, error.status_code, error.detail)
            finally:
                await request.close()  # files that were sent with a form

        return answer

    def _refusal(self, asked: Asked, status: int, why: str) -> Response:
        return self.show(asked, "refused.html", {"status": status, "why": why}, status)


_STATUS = {"not_found": 404, "taken": 409, "in_use": 409, "stale": 412}
_MAY_NOT: Mapping[Scope, str] = {
    "read": "You may not see this.",
    "listen": "Supervisors and admins may listen; you may not.",
    "calls": "Supervisors and admins may do this; you may not.",
    "write": "Admins may change this; you may look at it.",
    "admin": "This is for admins.",
}


def _sign_in(request: Request) -> Response:
    to = request.url.path if request.method in ("GET", "HEAD") else f"{ROOT}/"
    return RedirectResponse(f"{ROOT}/sign-in?{urlencode({'next': to})}", 303)


async def _read(request: Request, who: Principal) -> Asked:
    """Raises HTTPException."""
    form = await request.form(max_fields=forms.MAX_FIELDS, max_part_size=MAX_PART_BYTES)
    token = request.scope.get("state", {}).get("csrf", "")
    given = str(form.get(CSRF_FIELD) or request.headers.get("x-csrf-token", ""))
    if not token or not hmac.compare_digest(given.encode(), token.encode()):
        raise HTTPException(403, "This form is not of your session any more. Please go back, reload and try again.")
    try:
        nested = forms.nested(_texts(form))
    except ValueError as error:
        raise HTTPException(400, f"The form cannot be read: {error}") from None
    files = {name: value for name, value in form.items() if isinstance(value, UploadFile)}
    do = nested.pop("do", "save")
    return Asked(request, who, nested, files, do if isinstance(do, str) else "save")


def _texts(form: FormData) -> list[tuple[str, str]]:
    return [(name, value) for name, value in form.multi_items() if isinstance(value, str)]


def to(path: str, **query: str) -> Response:
    """Where the browser goes after a POST."""
    asked = f"?{urlencode(query)}" if query else ""
    return RedirectResponse(f"{ROOT}/{path}{asked}", 303)


def of(kind: str, key: str) -> str:
    """The path of one."""
    return f"{kind}/{quote(key, safe='')}"
