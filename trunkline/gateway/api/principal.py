"""Who asks: as the guard has found."""

from starlette.requests import Request

from trunkline.types import DEFAULT_TENANT, TenantId


def tenant_of(request: Request) -> TenantId:
    principal = getattr(request.state, "principal", None)
    return DEFAULT_TENANT if principal is None else TenantId(principal.tenant)


def actor_of(request: Request) -> str:
    """For the record."""
    return str(getattr(getattr(request.state, "principal", None), "actor", "") or "api")
