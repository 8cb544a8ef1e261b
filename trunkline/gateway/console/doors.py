"""The ways into the console and out of it, as routes. What they look like is `render`'s.

    GET, POST   /console/sign-in          email, password, next
    GET, POST   /console/setup            token, email, password: the first admin
    GET, POST   /console/link             token, password
    POST        /console/password         csrf_token, old, new
    POST        /console/sign-out         csrf_token, everywhere
    GET         /console/oidc/start, /console/oidc/callback

A form that is taken is answered with 303 and the cookie. One that is not is shown again, with why.
"""

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from trunkline.errors import StoreError
from trunkline.gateway.console import oidc
from trunkline.gateway.console.accounts import Accounts, Refused, SignedIn, Store
from trunkline.gateway.console.cookies import CSRF_FIELD, Cookies, csrf_holds, csrf_token, of_our_pages
from trunkline.gateway.console.vouched import Mapped, sign_in_vouched
from trunkline.identity import Session

log = logging.getLogger(__name__)

HOME = "/console/"
START = "/console/start"
"""The first admin's first page."""
SIGN_IN = "/console/sign-in"
MAX_FORM_BYTES = 8 * 1024
MAX_FIELDS = 16
_FORM = "application/x-www-form-urlencoded"

PageName = Literal["sign_in", "setup", "link", "password"]


@dataclass(frozen=True, slots=True)
class Page:
    """What is to be shown."""

    name: PageName
    status: int = 200
    refused: Refused | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    """To be there already: email, token, next. Never a password."""
    has_oidc: bool = False
    csrf: str = ""
    """For the hidden field `csrf_token`, of a page for somebody who is signed in."""


Render = Callable[[Request, Page], Response]
_STATUS = {"wrong": 401, "wait": 429, "busy": 503, "away": 503, "link": 410, "exists": 409}
_AWAY = Refused("away", "The database is away. Please try again in a moment.", 5)
_FOREIGN = Refused("wrong", "This form was sent by another page. Please use this one.")


def plain(request: Request, page: Page) -> Response:
    """In words, where there are no pages."""
    text = page.refused.why if page.refused is not None else f"POST a form here: {page.name}"
    headers = {"Retry-After": str(page.refused.wait_s)} if page.refused is not None and page.refused.wait_s else {}
    return PlainTextResponse(text + "\n", page.status, headers)


class Doors:
    def __init__(
        self,
        accounts: Accounts,
        store: Store,
        cookies: Cookies,
        render: Render = plain,
        provider: oidc.Provider | None = None,
        mapped: Mapped | None = None,
    ) -> None:
        self.accounts, self.cookies, self._store, self._render = accounts, cookies, store, render
        self._provider, self._mapped = provider, mapped or Mapped()

    # --- for the pages ---

    def cookie(self, request: Request) -> str | None:
        return self.cookies.read(request.headers.get("cookie", ""))

    async def signed_in(self, request: Request) -> Session | None:
        """Raises StoreError."""
        return await self.accounts.session(self.cookie(request))

    def csrf(self, request: Request) -> str:
        """For the forms and requests of whoever is signed in."""
        cookie = self.cookie(request)
        return "" if cookie is None else csrf_token(cookie)

    def may_change(self, request: Request, form: Mapping[str, str]) -> bool:
        """Whether a form (or X-CSRF-Token) is of a page of this session."""
        cookie, given = self.cookie(request), form.get(CSRF_FIELD) or request.headers.get("x-csrf-token")
        return cookie is not None and of_our_pages(request.headers) and csrf_holds(cookie, given)

    # --- routes ---

    def routes(self) -> list[Route]:
        routes = [
            Route(SIGN_IN, self._caught("sign_in", self._show_sign_in), methods=["GET"]),
            Route(SIGN_IN, self._caught("sign_in", self._sign_in), methods=["POST"]),
            Route("/console/sign-out", self._caught("sign_in", self._sign_out), methods=["POST"]),
            Route("/console/setup", self._caught("setup", self._show_setup), methods=["GET"]),
            Route("/console/setup", self._caught("setup", self._setup), methods=["POST"]),
            Route("/console/link", self._caught("link", self._show_link), methods=["GET"]),
            Route("/console/link", self._caught("link", self._link), methods=["POST"]),
            Route("/console/password", self._caught("password", self._password), methods=["POST"]),
        ]
        if self._provider is not None:
            routes += [
                Route("/console/oidc/start", self._caught("sign_in", self._oidc_start), methods=["GET"]),
                Route("/console/oidc/callback", self._caught("sign_in", self._oidc_callback), methods=["GET"]),
            ]
        return routes

    def _caught(
        self, name: PageName, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        @functools.wraps(handler)
        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except StoreError as error:
                log.error("%s %s: %s", request.method, request.url.path, error)
                return self._again(request, name, _AWAY)

        return answer

    def _page(self, request: Request, name: PageName, fields: Mapping[str, str]) -> Response:
        return self._render(request, Page(name, 200, None, fields, self._provider is not None))

    def _again(
        self, request: Request, name: PageName, refused: Refused, fields: Mapping[str, str] | None = None
    ) -> Response:
        status = 403 if refused is _FOREIGN else _STATUS.get(refused.code, 422)
        csrf = self.csrf(request) if name == "password" else ""
        return self._render(request, Page(name, status, refused, fields or {}, self._provider is not None, csrf))

    def _in(self, found: SignedIn, to: str = HOME) -> Response:
        return RedirectResponse(to, 303, {"Set-Cookie": self.cookies.set(found.token, found.max_age_s)})

    async def _show_sign_in(self, request: Request) -> Response:
        to = _local(request.query_params.get("next"))
        if await self.signed_in(request) is not None:
            return RedirectResponse(to, 303)
        return self._page(request, "sign_in", {"next": to})

    async def _sign_in(self, request: Request) -> Response:
        form = await _form(request)
        if form is None or not of_our_pages(request.headers):
            return self._again(request, "sign_in", _FOREIGN)
        email, to = form.get("email", ""), _local(form.get("next"))
        found = await self.accounts.sign_in(
            email, form.get("password", ""), address_of(request), _agent(request), self.cookie(request)
        )
        if isinstance(found, Refused):
            return self._again(request, "sign_in", found, {"email": email[:254], "next": to})
        return self._in(found, to)

    async def _sign_out(self, request: Request) -> Response:
        form = await _form(request)
        cookie = self.cookie(request)
        out = RedirectResponse(SIGN_IN, 303, {"Set-Cookie": self.cookies.clear()})
        session = await self.signed_in(request)
        if session is None or cookie is None:
            return out
        if form is None or not self.may_change(request, form):
            return self._again(request, "sign_in", _FOREIGN)
        if form.get("everywhere"):
            await self.accounts.sign_out_everywhere(session.user, session.user.principal.actor)
        else:
            await self.accounts.sign_out(cookie)
        return out

    async def _show_setup(self, request: Request) -> Response:
        token = request.query_params.get("token", "")
        if not await self.accounts.may_set_up(token):
            return self._again(request, "setup", Refused("link", "This link is not good any more."))
        return self._page(request, "setup", {"token": token})

    async def _setup(self, request: Request) -> Response:
        form = await _form(request)
        if form is None or not of_our_pages(request.headers):
            return self._again(request, "setup", _FOREIGN)
        token, email = form.get("token", ""), form.get("email", "")
        found = await self.accounts.setup(token, email, form.get("password", ""), _agent(request))
        if isinstance(found, Refused):
            return self._again(request, "setup", found, {"token": token, "email": email[:254]})
        return self._in(found, START)

    async def _show_link(self, request: Request) -> Response:
        token = request.query_params.get("token", "")
        user = await self.accounts.invited(token)
        if user is None:
            return self._again(request, "link", Refused("link", "This link is not good any more."))
        return self._page(request, "link", {"token": token, "email": user.email})

    async def _link(self, request: Request) -> Response:
        form = await _form(request)
        if form is None or not of_our_pages(request.headers):
            return self._again(request, "link", _FOREIGN)
        token = form.get("token", "")
        found = await self.accounts.by_link(token, form.get("password", ""), _agent(request))
        return self._again(request, "link", found, {"token": token}) if isinstance(found, Refused) else self._in(found)

    async def _password(self, request: Request) -> Response:
        form, session = await _form(request), await self.signed_in(request)
        if session is None:
            return RedirectResponse(SIGN_IN, 303)
        if form is None or not self.may_change(request, form):
            return self._again(request, "password", _FOREIGN)
        found = await self.accounts.change_password(
            session, form.get("old", ""), form.get("new", ""), address_of(request)
        )
        return self._again(request, "password", found) if isinstance(found, Refused) else self._in(found)

    async def _oidc_start(self, request: Request) -> Response:
        assert self._provider is not None
        try:
            begun = await self._provider.start()
        except oidc.OidcError as error:
            log.warning("OpenID: %s", error)
            return self._again(request, "sign_in", Refused("away", "The other sign-in is away. Please try again."))
        cookie = self.cookies.set(begun.cookie, oidc.BEGUN_HOLDS_S, oidc.COOKIE)
        return RedirectResponse(begun.url, 303, {"Set-Cookie": cookie})

    async def _oidc_callback(self, request: Request) -> Response:
        assert self._provider is not None
        begun = self.cookies.read(request.headers.get("cookie", ""), oidc.COOKIE)
        try:
            vouched = await self._provider.finish(request.query_params, begun)
        except oidc.OidcError as error:
            log.warning("OpenID: nobody is signed in: %s", error)
            found: SignedIn | Refused = Refused("wrong", "That did not work. Please try again.")
        else:
            found = await sign_in_vouched(
                self.accounts, self._store, self._mapped, vouched, _agent(request), self.cookie(request)
            )
        response = self._again(request, "sign_in", found) if isinstance(found, Refused) else self._in(found)
        response.headers.append("Set-Cookie", self.cookies.clear(oidc.COOKIE))
        return response


def address_of(request: Request) -> str:
    """Where the connection comes from. A header would be whatever the caller wrote there."""
    return request.client.host if request.client is not None else ""


def _agent(request: Request) -> str:
    return request.headers.get("user-agent", "")


def _local(to: str | None) -> str:
    """A page of the console's, or its first: never another site's."""
    fine = to is not None and to.startswith(HOME) and to.isprintable() and "\\" not in to and ".." not in to
    return to if fine and to is not None else HOME


async def _form(request: Request) -> dict[str, str] | None:
    """None: it is none."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return None
    body = await request.body()
    if len(body) > MAX_FORM_BYTES:
        return None
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        return None
