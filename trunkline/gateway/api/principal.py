"""What each route of /v1 asks of whoever comes: the table, and what the routes ask of the request.

A path is written as the router has it. What is not in the table is the admins' (and a test names it): a route that
somebody forgot to write here is closed, not open.
"""

import re
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request

from trunkline.identity import Principal, Scope
from trunkline.types import DEFAULT_TENANT, TenantId

_CRUD = ("GET", "POST", "PUT", "PATCH", "DELETE")


def _owned(path: str, change: Scope = "write", look: Scope = "read") -> dict[tuple[str, str], Scope]:
    """Of what admins own: seen, made and changed."""
    return {
        (method, each): look if method == "GET" else change for each in (path, f"{path}/{{key}}") for method in _CRUD
    }


TABLE: Mapping[tuple[str, str], Scope] = {
    ("GET", "/v1/calls"): "read",
    ("POST", "/v1/calls"): "calls",
    ("GET", "/v1/calls/live"): "read",
    ("GET", "/v1/calls/export"): "listen",
    ("GET", "/v1/calls/{call_id}/timeline"): "listen",
    ("GET", "/v1/calls/{call_id}/recording"): "listen",
    ("GET", "/v1/stats"): "read",
    ("GET", "/v1/events"): "read",
    ("GET", "/v1/calls/{call_id}"): "read",  # with its transcript for `listen`
    ("DELETE", "/v1/calls/{call_id}"): "calls",
    ("POST", "/v1/calls/{call_id}/transfer"): "calls",
    ("DELETE", "/v1/calls/{call_id}/transfer"): "calls",
    ("POST", "/v1/calls/{call_id}/hold"): "calls",
    ("POST", "/v1/calls/{call_id}/resume"): "calls",
    ("POST", "/v1/calls/{call_id}/mute"): "calls",
    ("GET", "/v1/calls/{call_id}/legs"): "read",
    ("POST", "/v1/calls/{call_id}/legs"): "calls",
    ("PATCH", "/v1/calls/{call_id}/legs/{leg_id}"): "calls",
    ("DELETE", "/v1/calls/{call_id}/legs/{leg_id}"): "calls",
    ("GET", "/v1/providers"): "read",
    ("POST", "/v1/compliance/check"): "read",
    ("POST", "/v1/compliance/preview"): "read",
    ("GET", "/v1/compliance/tables"): "read",
    ("GET", "/v1/compliance/ledger"): "read",
    ("PUT", "/v1/compliance/stop"): "calls",
    ("DELETE", "/v1/compliance/stop"): "admin",
    ("POST", "/v1/consent"): "calls",
    ("GET", "/v1/consent/{subject}"): "listen",
    ("DELETE", "/v1/consent/{subject}"): "admin",
    ("POST", "/v1/dnc"): "calls",
    ("GET", "/v1/dnc/{subject}"): "read",
    ("POST", "/v1/session"): "calls",
    ("GET", "/v1/session/{session_id}"): "listen",
    ("DELETE", "/v1/session/{session_id}"): "calls",
    ("POST", "/v1/session/{session_id}/token"): "calls",
    ("POST", "/v1/device/{device_id}/register"): "calls",
    ("GET", "/v1/routing/hint"): "read",
    ("GET", "/v1/trunks"): "read",
    **_owned("/v1/carriers"),
    **_owned("/v1/sip-trunks"),
    **_owned("/v1/hours"),
    **_owned("/v1/agents"),
    **_owned("/v1/routes"),
    **_owned("/v1/numbers"),
    ("POST", "/v1/numbers/{key}/route"): "read",
    ("POST", "/v1/numbers/import"): "write",
    **_owned("/v1/budgets", "admin"),
    ("GET", "/v1/agents/{key}/versions"): "read",
    ("GET", "/v1/agents/{key}/versions/{number}"): "read",
    ("POST", "/v1/agents/{key}/publish"): "write",
    ("POST", "/v1/agents/{key}/roll-back"): "write",
    ("GET", "/v1/webhooks"): "read",
    ("POST", "/v1/webhooks"): "admin",
    ("GET", "/v1/webhooks/{webhook_id}"): "read",
    ("PATCH", "/v1/webhooks/{webhook_id}"): "admin",
    ("DELETE", "/v1/webhooks/{webhook_id}"): "admin",
    ("POST", "/v1/webhooks/{webhook_id}/rotate"): "admin",
    ("POST", "/v1/webhooks/{webhook_id}/test"): "admin",
    ("GET", "/v1/webhooks/{webhook_id}/deliveries"): "listen",
    ("POST", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"): "admin",
    ("GET", "/v1/tenant"): "read",
    ("PUT", "/v1/tenant"): "admin",
    ("PATCH", "/v1/tenant"): "admin",
    ("GET", "/v1/changes"): "admin",
    ("GET", "/v1/export"): "read",
    ("POST", "/v1/apply"): "admin",
    **_owned("/v1/users", "admin", "admin"),
    **_owned("/v1/keys", "admin", "admin"),
    ("POST", "/v1/users/{key}/link"): "admin",
    ("POST", "/v1/users/{key}/sign-out"): "admin",
    ("GET", "/v1/me"): "read",
}


def _compiled() -> list[tuple[re.Pattern[str], dict[str, Scope]]]:
    by_path: dict[str, dict[str, Scope]] = {}
    for (method, path), scope in TABLE.items():
        by_path.setdefault(path, {})[method] = scope
    exact_first = sorted(by_path.items(), key=lambda entry: entry[0].count("{"))
    return [(re.compile(re.sub(r"\{[a-z_]+\}", "[^/]+", path)), scopes) for path, scopes in exact_first]


_PATTERNS = _compiled()


def scope_for(method: str, path: str) -> Scope | None:
    """What a request needs, by its path as it came. None: it is not in the table."""
    method = "GET" if method == "HEAD" else method
    for pattern, scopes in _PATTERNS:
        if method in scopes and pattern.fullmatch(path):
            return scopes[method]
    return None


def principal_of(request: Request) -> Principal:
    """Whom the guard let in."""
    principal: Principal = request.state.principal
    return principal


def tenant_of(request: Request) -> TenantId:
    return principal_of(request).tenant


def actor_of(request: Request) -> str:
    """For the record."""
    return principal_of(request).actor


def require(request: Request, scope: Scope) -> Principal:
    """For what a route finds out only later. Raises HTTPException, 403."""
    principal = principal_of(request)
    if not principal.may(scope):
        raise HTTPException(403, f"this needs the scope {scope}")
    return principal


def only_default(request: Request, what: str) -> TenantId:
    """Of what a process does for one tenant: its policy, its lists, its lines. Raises HTTPException, 403."""
    if tenant_of(request) != DEFAULT_TENANT:
        raise HTTPException(403, f"{what}: this gateway does that for the tenant {DEFAULT_TENANT} only")
    return DEFAULT_TENANT
