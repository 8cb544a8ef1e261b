"""A desk with its pages on a real database, and somebody who is signed in: what the tests of pages share."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from trunkline.agents import script
from trunkline.gateway.console.pages import Pages
from trunkline.gateway.console.routes import Parts, desk_page_routes
from trunkline.identity import ROLES, Principal, Role
from trunkline.numbers.desk import Desk
from trunkline.privacy.sealed import KeyRing
from trunkline.privacy.texts import TextSeal
from trunkline.store.desk import Desk as Store
from trunkline.store.engine import Database, database_url
from trunkline.testing.clock import ManualClock
from trunkline.types import DEFAULT_TENANT

CSRF = "the-token-of-this-session"
OURS = DEFAULT_TENANT
ONE, TWO = "+14155550100", "+14155550101"
HOSTILE = '"><script>alert(1)</script>'


class House:
    """`role` None: nobody is signed in."""

    def __init__(self, folder: Path, **parts: Any) -> None:
        self.folder = folder

        self.database, self.clock = Database(database_url(None, folder)), ManualClock()
        store = Store(self.database, self.clock, TextSeal(KeyRing({"one": bytes(32)})))
        self.desk = Desk(store, script.mistakes)
        self.role: Role | None = "admin"
        self.tenant, self.csrf, self.actor = OURS, CSRF, "user:ann"
        self.pages = Pages()
        self._routes: list[Route] = []
        self.serve(**parts)
        self.client = TestClient(self._as_somebody, follow_redirects=False)
        self._app: Starlette | None = None

    def serve(self, **parts: Any) -> None:
        routes = desk_page_routes(self.pages, self.desk, self.clock, Parts(_check, **parts))
        self._routes = [*self.pages.static_routes(), *routes]

    async def _as_somebody(self, scope: Scope, receive: Receive, send: Send) -> None:
        """In the guard's place."""
        if self._app is None:
            self._app = Starlette(routes=self._routes, lifespan=lambda app: self._opened())
        if scope["type"] == "http" and self.role is not None:
            who = Principal(self.tenant, self.actor, ROLES[self.role], self.role)
            scope.setdefault("state", {}).update(principal=who, csrf=self.csrf)
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[None]:
        await self.database.upgrade()
        yield
        await self.database.close()

    # --- for tests ---

    def see(self, path: str, status: int = 200) -> str:
        answer = self.client.get(f"/console/{path}")
        assert answer.status_code == status, answer.text
        return answer.text

    def send(self, path: str, fields: Mapping[str, str], status: int = 303) -> Any:
        answer = self.client.post(f"/console/{path}", data={"csrf_token": CSRF, **fields})
        assert answer.status_code == status, answer.text
        return answer

    def make(self, kind: str, **fields: Any) -> None:
        assert self.client.portal is not None
        self.client.portal.call(self.desk.make, self.tenant, "user:ann", kind, fields)

    def kept(self, kind: str, key: str) -> Any:
        assert self.client.portal is not None
        return self.client.portal.call(self.desk.store.get, self.tenant, kind, key)


async def _check(text: str) -> Any:
    return script.check_text(text)


class Fields(HTMLParser):
    """What a browser would send of the page's form whose action is `action`, with the first button."""

    def __init__(self, html: str, action: str) -> None:
        super().__init__()
        self.sent: dict[str, str] = {}
        self._action, self._inside = action, False
        self._select = self._area = ""
        self._first = ""
        self.feed(html)
        assert self.sent, f"no form of {action}"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        has = dict(attrs)
        if tag == "form":
            self._inside = has.get("action") == self._action
        if not self._inside:
            return
        name = has.get("name", "")
        if tag == "input" and name and has.get("type") not in ("checkbox", "radio", "submit", "file"):
            self.sent[name] = has.get("value") or ""
        if tag == "input" and has.get("type") == "checkbox" and "checked" in has:
            self.sent[name] = has.get("value") or "on"
        if tag == "select":
            self._select, self._first = name, ""
        if tag == "option" and self._select:
            if self._select not in self.sent:
                self.sent[self._select] = has.get("value") or ""
            if "selected" in has:
                self.sent[self._select] = has.get("value") or ""
        if tag == "textarea":
            self._area = name
            self.sent[name] = ""

    def handle_data(self, data: str) -> None:
        if self._area and self._inside:
            self.sent[self._area] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._area:
            self.sent[self._area] = self.sent[self._area].removeprefix("\n")
            self._area = ""
        if tag == "select":
            self._select = ""
        if tag == "form":
            self._inside = False


class Audit(HTMLParser):
    """What a page must not have, and what each of its forms must."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self._labels: set[str] = set()
        self._fields: list[str] = []
        self._ids: list[str] = []
        self._described: list[str] = []
        self._form: dict[str, str] | None = None
        self._has_csrf = False
        self.feed(html)
        self.wrong += [f"no label for {each}" for each in self._fields if each not in self._labels]
        self.wrong += [f"id {each} twice" for each in set(self._ids) if self._ids.count(each) > 1]
        self.wrong += [f"described by {each}, which is not there" for each in self._described if each not in self._ids]

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        has = {name: value or "" for name, value in attrs}
        for name in has:
            if name.startswith("on") or name == "style":
                self.wrong.append(f"{tag} has {name}")
        if tag == "style" or (tag == "script" and "src" not in has):
            self.wrong.append(f"inline {tag}")
        if "id" in has:
            self._ids.append(has["id"])
        self._described += has.get("aria-describedby", "").split()
        if tag == "form":
            self._form, self._has_csrf = has, False
        is_field = tag in ("input", "select", "textarea") and has.get("type") not in ("hidden", "submit")
        if is_field and "aria-label" not in has:
            self._fields.append(has.get("id", f"a nameless {tag}"))
        if tag == "label" and "for" in has:
            self._labels.add(has["for"])
        if tag == "input" and has.get("name") == "csrf_token" and re.fullmatch(r"\S+", has.get("value", "")):
            self._has_csrf = True
        if tag == "th" and "scope" not in has:
            self.wrong.append("th without scope")
        if tag == "img" and "alt" not in has:
            self.wrong.append("img without alt")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form" and self._form is not None:
            if self._form.get("method", "get").lower() == "post" and not self._has_csrf:
                self.wrong.append(f"form {self._form.get('action')} without its token")
            self._form = None
