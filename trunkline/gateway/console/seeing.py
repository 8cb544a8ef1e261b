"""Who looks at a page, and what they may: the same for each page of calls."""

import hmac
from collections.abc import Awaitable, Callable
from functools import wraps
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from trunkline.errors import StoreError
from trunkline.gateway.console.pages import ROOT, Pages
from trunkline.identity import Principal, Scope

Answer = Callable[[Request, Principal], Awaitable[Response]]
MESSAGE = "message.html"
CSRF_FIELD, CSRF_HEADER = "csrf_token", "x-csrf-token"
FOREIGN = "This was not sent by a page of your session. Open the page again, and try again."
MAX_FIELDS = 32


class NoSuch(Exception):
    """What was asked for is not there, or another tenant's."""


def page(pages: Pages, path: str, scope: Scope, answer: Answer, method: str = "GET") -> Route:
    """Nobody: to the sign-in. Who may not: 403 in words. The database away: 503 in words."""

    @wraps(answer)
    async def seen(request: Request) -> Response:
        who: Principal | None = getattr(request.state, "principal", None)
        if who is None:
            return RedirectResponse(f"{ROOT}/sign-in?next={quote(request.url.path)}", 303)
        if not who.may(scope):
            return told(pages, request, 403, "Not for you", "Your role may not see or do this. Ask an admin.")
        try:
            return await answer(request, who)
        except NoSuch as error:
            return told(pages, request, 404, "Not here", str(error))
        except StoreError:
            return told(
                pages, request, 503, "No database", "The database is away. Calls go on; try again in a moment.", "5"
            )

    return Route(f"{ROOT}/{path}", seen, methods=[method])


def told(pages: Pages, request: Request, status: int, head: str, text: str, retry_s: str = "") -> Response:
    headers = {"Retry-After": retry_s} if retry_s else {}
    return pages.answer(request, MESSAGE, {"head": head, "text": text}, status, headers)


async def form_of(request: Request) -> dict[str, str] | None:
    """None: it is none, or not of a page of this session, whatever stands before us."""
    try:
        pairs = parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return None
    form = dict(pairs)
    wanted = str(getattr(request.state, "csrf", ""))
    given = form.pop(CSRF_FIELD, "") or request.headers.get(CSRF_HEADER, "")
    return form if wanted and hmac.compare_digest(wanted.encode(), given.encode()) else None
