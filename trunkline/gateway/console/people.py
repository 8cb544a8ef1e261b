"""Pages of who may do what: users with their roles and links, and API keys. For admins; each may change their own
password.

    people                      GET; POST people/_user, people/_key
    people/NAME                 of a user: POST role and state; /_link, /_out, /_delete
    people/key/NAME/_end        the key is deleted

A link and a key are shown once, where they are made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, cast

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.gateway.api.gate import new_key
from trunkline.gateway.console.accounts import Accounts, is_email
from trunkline.gateway.console.edge import Asked, Edge, Endpoint, of, to
from trunkline.gateway.console.forms import Form
from trunkline.identity import (
    ROLES,
    SCOPES,
    AccountError,
    Keys,
    NewKey,
    NewUser,
    Role,
    Scope,
    Sessions,
    User,
    Users,
)
from trunkline.numbers.desk import read
from trunkline.numbers.resources import Agent
from trunkline.owned import DeskError

MAX_SHOWN = 500
MAX_LABEL_CHARS = 120
_STATUS = {"not_found": 404, "taken": 409, "stale": 412, "last_admin": 409}
ROLE_WORDS: Mapping[Role, str] = {
    "viewer": "sees numbers, calls and costs",
    "supervisor": "also listens, and controls calls",
    "admin": "also changes everything, and invites people",
}
SCOPE_WORDS: Mapping[Scope, str] = {
    "read": "read: numbers, calls, costs",
    "listen": "listen: recordings and transcripts",
    "calls": "calls: dial, control and hang up",
    "write": "write: numbers, routes, agents",
    "admin": "admin: people, keys, settings",
}


class Store(Users, Sessions, Protocol):
    pass


@dataclass(frozen=True, slots=True)
class PeopleParts:
    store: Store
    keys: Keys
    accounts: Accounts
    origin: str
    forget_key: Callable[[str], None]
    """Of this id nothing is remembered any more."""
    changed: Callable[[], None]
    """Somebody is there who was not."""


class PeoplePages:
    def __init__(self, edge: Edge, parts: PeopleParts, clock: Clock) -> None:
        self._edge, self._p, self._clock = edge, parts, clock

    def routes(self) -> list[Route]:
        edge = self._edge
        return [
            edge.get("people", self.look),
            edge.post("people/_user", self.invite, "admin"),
            edge.post("people/_key", self.make_key, "admin"),
            edge.post("people/key/{key}/_end", self.end_key, "admin"),
            edge.get("people/password", self.password),
            edge.get("people/of/{key}", self.look_at, "admin"),
            edge.post("people/of/{key}", self._told(self.change), "admin"),
            edge.post("people/of/{key}/_link", self.link, "admin"),
            edge.post("people/of/{key}/_out", self.out, "admin"),
            edge.post("people/of/{key}/_delete", self._told(self.delete), "admin"),
        ]

    def _told(self, endpoint: Endpoint) -> Endpoint:
        async def answer(asked: Asked) -> Response:
            try:
                return await endpoint(asked)
            except AccountError as error:
                user = await self._user(asked)
                return await self._one(asked, user, Form(_shown(user), why=str(error)), _STATUS[error.code])

        return answer

    # --- all of them ---

    async def look(self, asked: Asked) -> Response:
        return await self._all(asked, Form({"role": "viewer"}), Form({"scopes": {"read": "true"}}))

    async def _all(
        self,
        asked: Asked,
        user: Form,
        key: Form,
        status: int = 200,
        *,
        link: str = "",
        secret: str = "",
        made: str = "",
    ) -> Response:
        tenant, is_admin = asked.who.tenant, asked.who.may("admin")
        context = {
            "users": await self._p.store.users(tenant, limit=MAX_SHOWN) if is_admin else [],
            "keys": await self._p.keys.keys(tenant, limit=MAX_SHOWN) if is_admin else [],
            "u": user,
            "k": key,
            "link": link,
            "secret": secret,
            "made": made,
            "now": self._clock.wall(),
            "roles": [(role, f"{role}: {ROLE_WORDS[role]}") for role in ROLES],
            "scopes": [(scope, SCOPE_WORDS[scope]) for scope in SCOPES],
        }
        return self._edge.show(asked, "people.html", context, status)

    async def invite(self, asked: Asked) -> Response:
        typed, who = asked.fields, asked.who
        email, role = str(typed.get("email", "")).strip(), str(typed.get("role", ""))
        wrong = {} if is_email(email) else {"email": "an email address, such as ann@example.com"}
        if role not in ROLES:
            wrong["role"] = "viewer, supervisor or admin"
        wrong |= _wrong_label(typed)
        if wrong:
            return await self._all(asked, Form(typed, wrong), Form({}), 422)
        try:
            new = NewUser(email.lower(), cast(Role, role), label=str(typed.get("label", "")))
            user = await self._p.store.create_user(who.tenant, who.actor, new)
        except AccountError as error:
            return await self._all(asked, Form(typed, error.wanted or {"email": str(error)}), Form({}), 409)
        self._p.changed()
        link = await self._link_of(user)
        return await self._all(asked, Form({"role": "viewer"}), Form({}), link=link, made=user.email)

    async def _link_of(self, user: User) -> str:
        return f"{self._p.origin}/console/link?token={await self._p.accounts.invite(user)}"

    async def make_key(self, asked: Asked) -> Response:
        typed, who = asked.fields, asked.who
        chosen = typed.get("scopes")
        scopes = [scope for scope in SCOPES if isinstance(chosen, dict) and chosen.get(scope) == "true"]
        wrong = _wrong_name(str(typed.get("name", ""))) | _wrong_label(typed)
        if not scopes:
            wrong["scopes"] = "one of them at least"
        expires = _day(str(typed.get("expires", "")), self._clock.wall(), wrong)
        if wrong:
            return await self._all(asked, Form({"role": "viewer"}), Form(typed, wrong), 422)
        secret, key_id, sha256 = new_key()
        new = NewKey(str(typed["name"]), key_id, sha256, frozenset(scopes), str(typed.get("label", "")), expires)
        try:
            await self._p.keys.create_key(who.tenant, who.actor, new)
        except AccountError as error:
            return await self._all(
                asked, Form({"role": "viewer"}), Form(typed, error.wanted or {"name": str(error)}), 409
            )
        self._p.changed()
        return await self._all(asked, Form({"role": "viewer"}), Form({}), secret=secret, made=new.name)

    async def end_key(self, asked: Asked) -> Response:
        try:
            key = await self._p.keys.delete_key(asked.who.tenant, asked.who.actor, asked.key, asked.version)
        except AccountError as error:
            raise HTTPException(_STATUS[error.code], str(error)) from None
        self._p.forget_key(key.id)
        return to("people", said="deleted")

    async def password(self, asked: Asked) -> Response:
        """The form; what it sends is the doors'."""
        state = asked.request.scope.get("state", {})
        context = {
            "title": "Change your password",
            "page": "password",
            "fields": {},
            "refused": None,
            "is_over": False,
            "has_oidc": False,
            "csrf": state.get("csrf", ""),
        }
        return self._edge.show(asked, "door.html", context)

    # --- one ---

    async def _user(self, asked: Asked) -> User:
        user = await self._p.store.user(asked.who.tenant, asked.key)
        if user is None:
            raise HTTPException(404, f"There is no user {asked.key[:60]}.")
        return user

    async def look_at(self, asked: Asked) -> Response:
        user = await self._user(asked)
        return await self._one(asked, user, Form(_shown(user)))

    async def _one(self, asked: Asked, user: User, form: Form, status: int = 200, link: str = "") -> Response:
        context = {
            "user": user,
            "f": form,
            "sessions": await self._p.store.sessions_of(user.tenant, user.name),
            "link": link,
            "roles": [(role, f"{role}: {ROLE_WORDS[role]}") for role in ROLES],
        }
        return self._edge.show(asked, "people_one.html", context, status)

    async def change(self, asked: Asked) -> Response:
        typed, user = asked.fields, await self._user(asked)
        role = str(typed.get("role", ""))
        wrong = _wrong_label(typed) | ({} if role in ROLES else {"role": "viewer, supervisor or admin"})
        if wrong:
            return await self._one(asked, user, Form(typed, wrong), 422)
        changes = {"role": role, "label": str(typed.get("label", "")), "enabled": typed.get("enabled") == "true"}
        await self._p.store.change_user(user.tenant, asked.who.actor, user.name, changes, asked.version)
        self._p.accounts.forget()
        return to(of("people/of", user.name), said="saved")

    async def link(self, asked: Asked) -> Response:
        user = await self._user(asked)
        if not user.enabled:
            raise HTTPException(409, f"User {user.name} is switched off: switch them on first.")
        link = await self._link_of(user)
        await self._p.store.note(user.tenant, asked.who.actor, "link", "users", user.name)
        return await self._one(asked, user, Form(_shown(user)), link=link)

    async def out(self, asked: Asked) -> Response:
        user = await self._user(asked)
        await self._p.accounts.sign_out_everywhere(user, asked.who.actor)
        return to(of("people/of", user.name), said="out")

    async def delete(self, asked: Asked) -> Response:
        await self._p.store.delete_user(asked.who.tenant, asked.who.actor, asked.key, asked.version)
        self._p.accounts.forget()
        return to("people", said="deleted")


def _shown(user: User) -> dict[str, Any]:
    return {"role": user.role, "label": user.label, "enabled": user.enabled}


def _wrong_label(typed: Mapping[str, Any]) -> dict[str, str]:
    label = str(typed.get("label", ""))
    fine = len(label) <= MAX_LABEL_CHARS and label.isprintable()
    return {} if fine else {"label": f"at most {MAX_LABEL_CHARS} characters in one line"}


def _wrong_name(name: str) -> dict[str, str]:
    """As names of the desk are."""
    try:
        read(Agent.kind, {"name": name})
    except DeskError as error:
        return {"name": error.fields.get("name", error.why)}
    return {}


def _day(text: str, now: datetime, wrong: dict[str, str]) -> datetime | None:
    """The end of that day, of UTC. Empty: never."""
    if not text:
        return None
    try:
        end = datetime.fromisoformat(text).replace(tzinfo=now.tzinfo) + timedelta(days=1)
    except ValueError:
        end = now
    if end <= now:
        wrong["expires"] = "a day to come, or nothing"
    return end
