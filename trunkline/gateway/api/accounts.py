"""/v1/users, /v1/keys, /v1/me: who may do what in a tenant. For its admins; /v1/me is for everybody.

An ETag is the version in quotes. If-Match with another one is 412, and nothing is changed. A key is shown once, where
it is made; a user's link likewise.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.gateway.api.control import Body, Moment, read_json
from trunkline.gateway.api.gate import new_key
from trunkline.gateway.api.orders import wrong_fields
from trunkline.gateway.api.principal import principal_of, require, tenant_of
from trunkline.gateway.api.problems import problem
from trunkline.gateway.console.accounts import MAX_EMAIL_CHARS, Accounts, is_email
from trunkline.identity import SCOPES, AccountError, Key, Keys, NewKey, NewUser, Role, Scope, Sessions, User, Users

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,39}$"
LABEL_PATTERN = r"^\P{Cc}*$"
MAX_LABEL_CHARS = 120
MAX_PAGE, DEFAULT_PAGE = 500, 50
MAX_VERSION_DIGITS = 9
_STATUS = {"not_found": 404, "taken": 409, "stale": 412, "last_admin": 409}
_WANTED = {
    "name": "1 to 40 of a-z 0-9 _ -, a letter or digit first",
    "email": f"an email address of at most {MAX_EMAIL_CHARS} characters",
    "label": f"at most {MAX_LABEL_CHARS} characters without line ends",
    "role": "viewer, supervisor or admin",
    "enabled": "true or false",
    "scopes": f"at least one of {', '.join(SCOPES)}, each once",
    "expires_at": "a time to come, with its zone, such as 2027-01-01T00:00:00Z; or null",
}


class Store(Users, Sessions, Protocol):
    pass


def _email(value: str) -> str:
    if not is_email(value):
        raise ValueError("no email address")
    return value.strip().lower()


def _distinct(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) < len(scopes):
        raise ValueError("twice")
    return scopes


_Name = Annotated[str, Field(pattern=NAME_PATTERN)]
_Email = Annotated[str, Field(max_length=MAX_EMAIL_CHARS), AfterValidator(_email)]
_Label = Annotated[str, Field(max_length=MAX_LABEL_CHARS, pattern=LABEL_PATTERN)]
_Scopes = Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES)), AfterValidator(_distinct)]


class _NewUser(Body):
    email: _Email
    role: Role = "viewer"
    name: _Name | None = None
    label: _Label = ""


class _ChangedUser(Body):
    """What is not given stays."""

    email: _Email | None = None
    role: Role | None = None
    label: _Label | None = None
    enabled: bool | None = None


class _NewKey(Body):
    name: _Name
    scopes: _Scopes
    label: _Label = ""
    expires_at: Moment | None = None


class _ChangedKey(Body):
    scopes: _Scopes | None = None
    label: _Label | None = None
    enabled: bool | None = None
    expires_at: Moment | None = None


def account_routes(
    store: Store,
    keys: Keys,
    accounts: Accounts,
    clock: Clock,
    origin: str,
    forget_key: Callable[[str], None],
    changed: Callable[[], None],
) -> list[Route]:
    """`forget_key`: of this id nothing is remembered any more. `changed`: somebody is there who was not."""

    # --- users ---

    async def list_users(request: Request) -> Response:
        limit, after = _page(request)
        found = await store.users(tenant_of(request), limit=limit + 1, after=after)
        return _listed("users", [_user(user) for user in found], limit)

    async def create_user(request: Request) -> Response:
        asked = await read_json(request, _NewUser, _WANTED)
        if isinstance(asked, Response):
            return asked
        principal = principal_of(request)
        new = NewUser(asked.email, asked.role, asked.name or "", asked.label)
        user = await store.create_user(principal.tenant, principal.actor, new)
        changed()
        link = f"{origin}/console/link?token={await accounts.invite(user)}"
        headers = {"Location": f"/v1/users/{user.name}", "ETag": _etag(user.version)}
        return JSONResponse({**_user(user), "link": link}, 201, headers)

    async def get_user(request: Request) -> Response:
        return _one(_user(await user_of(request)))

    async def change_user(request: Request) -> Response:
        asked = await read_json(request, _ChangedUser, _WANTED)
        if isinstance(asked, Response):
            return asked
        given = {name: getattr(asked, name) for name in asked.model_fields_set}
        if none := [name for name, value in given.items() if value is None]:
            return wrong_fields("invalid_fields", {name: _WANTED[name] for name in none})
        principal = principal_of(request)
        user = await store.change_user(principal.tenant, principal.actor, _key(request), given, _if_match(request))
        accounts.forget()
        return _one(_user(user))

    async def delete_user(request: Request) -> Response:
        principal = principal_of(request)
        await store.delete_user(principal.tenant, principal.actor, _key(request), _if_match(request))
        accounts.forget()
        return Response(status_code=204)

    async def link(request: Request) -> Response:
        """For a password that is forgotten, or was never set."""
        user = await user_of(request)
        if not user.enabled:
            return problem(409, f"user {user.name} is disabled", code="disabled")
        principal = principal_of(request)
        token = await accounts.invite(user)
        await store.note(principal.tenant, principal.actor, "link", "users", user.name)
        return JSONResponse({"link": f"{origin}/console/link?token={token}"}, 201)

    async def sign_out(request: Request) -> Response:
        closed = await accounts.sign_out_everywhere(await user_of(request), principal_of(request).actor)
        return JSONResponse({"closed": closed})

    async def user_of(request: Request) -> User:
        user = await store.user(tenant_of(request), _key(request))
        if user is None:
            raise HTTPException(404, "no such user")
        return user

    # --- keys ---

    async def list_keys(request: Request) -> Response:
        limit, after = _page(request)
        found = await keys.keys(tenant_of(request), limit=limit + 1, after=after)
        return _listed("keys", [_shown_key(key) for key in found], limit)

    async def create_key(request: Request) -> Response:
        asked = await read_json(request, _NewKey, _WANTED)
        if isinstance(asked, Response):
            return asked
        if (wrong := unusable(request, asked.scopes, asked.expires_at)) is not None:
            return wrong
        principal = principal_of(request)
        secret, key_id, sha256 = new_key()
        new = NewKey(asked.name, key_id, sha256, frozenset(asked.scopes), asked.label, asked.expires_at)
        key = await keys.create_key(principal.tenant, principal.actor, new)
        changed()
        headers = {"Location": f"/v1/keys/{key.name}", "ETag": _etag(key.version)}
        return JSONResponse({**_shown_key(key), "key": secret}, 201, headers)

    async def get_key(request: Request) -> Response:
        key = await keys.key(tenant_of(request), _key(request))
        if key is None:
            raise HTTPException(404, "no such key")
        return _one(_shown_key(key))

    async def change_key(request: Request) -> Response:
        asked = await read_json(request, _ChangedKey, _WANTED)
        if isinstance(asked, Response):
            return asked
        given = {name: getattr(asked, name) for name in asked.model_fields_set}
        if none := [name for name, value in given.items() if value is None and name != "expires_at"]:
            return wrong_fields("invalid_fields", {name: _WANTED[name] for name in none})
        if (wrong := unusable(request, asked.scopes or [], asked.expires_at)) is not None:
            return wrong
        if asked.scopes is not None:
            given["scopes"] = frozenset(asked.scopes)
        principal = principal_of(request)
        key = await keys.change_key(principal.tenant, principal.actor, _key(request), given, _if_match(request))
        forget_key(key.id)
        return _one(_shown_key(key))

    async def delete_key(request: Request) -> Response:
        principal = principal_of(request)
        key = await keys.delete_key(principal.tenant, principal.actor, _key(request), _if_match(request))
        forget_key(key.id)
        return Response(status_code=204)

    def unusable(request: Request, scopes: Sequence[Scope], expires_at: datetime | None) -> Response | None:
        for scope in scopes:
            require(request, scope)  # nobody gives away what they have not
        if expires_at is not None and expires_at <= clock.wall():
            return wrong_fields("invalid_fields", {"expires_at": _WANTED["expires_at"]})
        return None

    async def me(request: Request) -> Response:
        principal = principal_of(request)
        return JSONResponse(
            {
                "tenant": principal.tenant,
                "actor": principal.actor,
                "role": principal.role,
                "scopes": [scope for scope in SCOPES if principal.may(scope)],
            }
        )

    return [
        Route("/v1/users", _told(list_users), methods=["GET"]),
        Route("/v1/users", _told(create_user), methods=["POST"]),
        Route("/v1/users/{key}", _told(get_user), methods=["GET"]),
        Route("/v1/users/{key}", _told(change_user), methods=["PATCH"]),
        Route("/v1/users/{key}", _told(delete_user), methods=["DELETE"]),
        Route("/v1/users/{key}/link", _told(link), methods=["POST"]),
        Route("/v1/users/{key}/sign-out", _told(sign_out), methods=["POST"]),
        Route("/v1/keys", _told(list_keys), methods=["GET"]),
        Route("/v1/keys", _told(create_key), methods=["POST"]),
        Route("/v1/keys/{key}", _told(get_key), methods=["GET"]),
        Route("/v1/keys/{key}", _told(change_key), methods=["PATCH"]),
        Route("/v1/keys/{key}", _told(delete_key), methods=["DELETE"]),
        Route("/v1/me", _told(me), methods=["GET"]),
    ]


def _told(handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """What cannot be done, as a problem."""

    async def answer(request: Request) -> Response:
        try:
            response: Response = await handler(request)
        except AccountError as error:
            errors = [{"field": name, "detail": wanted} for name, wanted in error.wanted.items()]
            more: dict[str, Any] = {"errors": errors} if errors else {}
            return problem(_STATUS[error.code], str(error), code=error.code, **more)
        return response

    return answer


def _user(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "email": user.email,
        "label": user.label,
        "role": user.role,
        "enabled": user.enabled,
        "has_password": user.password_hash is not None,
        "has_oidc": user.oidc_subject is not None,
        "version": user.version,
        "created_at": user.created_at.isoformat(),
        "updated_at": user.updated_at.isoformat(),
    }


def _shown_key(key: Key) -> dict[str, Any]:
    return {
        "name": key.name,
        "label": key.label,
        "id": key.id,
        "scopes": [scope for scope in SCOPES if scope in key.scopes],
        "enabled": key.enabled,
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
        "used_at": None if key.used_at is None else key.used_at.isoformat(),
        "created_by": key.created_by,
        "version": key.version,
        "created_at": key.created_at.isoformat(),
        "updated_at": key.updated_at.isoformat(),
    }


def _one(shown: dict[str, Any]) -> Response:
    return JSONResponse(shown, headers={"ETag": _etag(shown["version"])})


def _listed(kind: str, shown: Sequence[dict[str, Any]], limit: int) -> Response:
    """`shown`: one more than asked for, where there is another page."""
    there = len(shown) > limit
    cursor = base64.urlsafe_b64encode(shown[limit - 1]["name"].encode()).decode().rstrip("=") if there else None
    return JSONResponse({kind: list(shown[:limit]), "next_cursor": cursor})


def _page(request: Request) -> tuple[int, str]:
    """How many, and after which name."""
    limit, cursor = request.query_params.get("limit", str(DEFAULT_PAGE)), request.query_params.get("cursor", "")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= MAX_PAGE):
        raise HTTPException(400, f"limit: 1 to {MAX_PAGE} expected")
    try:
        after = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise HTTPException(400, "cursor: the next_cursor of an earlier answer expected") from None
    if not after.isprintable():
        raise HTTPException(400, "cursor: the next_cursor of an earlier answer expected")
    return int(limit), after


def _key(request: Request) -> str:
    key: str = request.path_params["key"]
    if len(key) > 64 or not key.isprintable():
        raise HTTPException(404, "no such user or key")
    return key


def _etag(version: int) -> str:
    return f'"{version}"'


def _if_match(request: Request) -> int | None:
    """None: whatever version there is. Raises HTTPException, 412, for what is no version of ours."""
    given = request.headers.get("if-match", "*").strip()
    if given == "*":
        return None
    bare = given.removeprefix('"').removesuffix('"')
    if bare.isascii() and bare.isdigit() and len(bare) <= MAX_VERSION_DIGITS and given == _etag(int(bare)):
        return int(bare)
    raise HTTPException(412, "If-Match: the ETag of what was last seen")
