"""Idempotency-Key on POSTs of the desk (draft-ietf-httpapi-idempotency-key-header-07): who repeats a request within a
day is given the first one's answer. Orders to dial have their own way (idempotency.py), since a call outlives its
answer.

A key that is taken and has no answer yet gets 409; one whose process died before it answered is free again after
two minutes (store/replies.py). What was refused (4xx, 5xx) frees the key: nothing was done.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

from starlette.requests import Request
from starlette.responses import Response

from trunkline.gateway.api.idempotency import key_of
from trunkline.gateway.api.principal import principal_of
from trunkline.gateway.api.problems import problem
from trunkline.types import TenantId

_KEPT_HEADERS = ("etag", "location")

Endpoint = Callable[[Request], Awaitable[Response]]


class Replies(Protocol):
    """Raise StoreError when the database is away."""

    async def claim(
        self, tenant: TenantId, key: str, fingerprint: str
    ) -> tuple[int, dict[str, str], bytes] | Literal["claimed", "under_way", "other"]: ...

    async def answered(self, tenant: TenantId, key: str, status: int, headers: dict[str, str], body: bytes) -> None: ...

    async def free(self, tenant: TenantId, key: str) -> None: ...


def once(replies: Replies, endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        key = key_of(request.headers.getlist("idempotency-key"))
        if isinstance(key, Response):
            return key
        if key is None:
            return await endpoint(request)
        tenant = principal_of(request).tenant
        known = await replies.claim(tenant, key, await _fingerprint(request))
        if known == "under_way":
            detail = "a request with this key is under way"
            return problem(409, detail, {"Retry-After": "1"}, code="idempotency_key_in_use")
        if known == "other":
            return problem(422, "this key was used for another request", code="idempotency_key_reused")
        if isinstance(known, tuple):
            status, headers, body = known
            return Response(body, status, headers)
        try:
            made = await endpoint(request)
        except BaseException:
            await replies.free(tenant, key)
            raise
        if made.status_code >= 400:
            await replies.free(tenant, key)
        else:
            headers = {name: made.headers[name] for name in (*_KEPT_HEADERS, "content-type") if name in made.headers}
            await replies.answered(tenant, key, made.status_code, headers, bytes(made.body))
        return made

    return answer


async def _fingerprint(request: Request) -> str:
    asked = f"{request.method} {request.url.path}\n".encode() + await request.body()
    return hashlib.sha256(asked).hexdigest()
