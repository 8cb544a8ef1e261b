"""What calls look at of the desk: whose a number is, and who answers it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Row, Table, select

from trunkline.ports import Columns, DeskRows
from trunkline.store import models
from trunkline.store.engine import Database
from trunkline.types import TenantId

_NUMBERS, _ROUTES, _HOURS, _AGENTS, _TERMS, _REVISIONS = (
    cast(Table, table.__table__)
    for table in (
        models.NumberRow,
        models.RouteRow,
        models.HoursRow,
        models.AgentRow,
        models.TenantTerms,
        models.Revision,
    )
)
_OF_THE_ROW = {"tenant_id", "version", "created_at", "updated_at"}


class DatabaseNumbers:
    """`ports.NumberRows`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def revisions(self) -> Mapping[TenantId, int]:
        async with self._database.read() as connection:
            query = select(_REVISIONS.c.tenant_id, _REVISIONS.c.desk).where(_REVISIONS.c.desk > 0)
            return {TenantId(tenant): desk for tenant, desk in await connection.execute(query)}

    async def owner_of(self, number: str) -> tuple[TenantId, Columns] | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(_NUMBERS).where(_NUMBERS.c.number == number))).one_or_none()
        return None if row is None else (TenantId(row.tenant_id), _columns(row))

    async def desk(self, tenant: TenantId) -> DeskRows:
        routes = select(_ROUTES.c.name, _ROUTES.c.matches, _ROUTES.c.trunk).where(_ROUTES.c.tenant_id == tenant)
        agents = select(_AGENTS.c.name, _AGENTS.c.published).where(_AGENTS.c.tenant_id == tenant)
        async with self._database.read() as connection:
            terms = (await connection.execute(select(_TERMS).where(_TERMS.c.tenant_id == tenant))).one_or_none()
            matches = [
                (name, tuple(patterns), trunk)
                for name, patterns, trunk in await connection.execute(routes.order_by(_ROUTES.c.name))
                if patterns
            ]
            published = {name: version for name, version in await connection.execute(agents)}
        return DeskRows(None if terms is None else _columns(terms), matches, published)

    async def route(self, tenant: TenantId, name: str) -> tuple[Columns, Sequence[Columns]] | None:
        async with self._database.read() as connection:
            query = select(_ROUTES).where(_ROUTES.c.tenant_id == tenant, _ROUTES.c.name == name)
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            named = select(_HOURS).where(_HOURS.c.tenant_id == tenant, _HOURS.c.name.in_(set(_hours_of(row))))
            hours = [_columns(each) for each in await connection.execute(named)]
        return _columns(row), hours


def _columns(row: Row[Any]) -> Columns:
    return {name: value for name, value in row._mapping.items() if name not in _OF_THE_ROW}


def _hours_of(row: Row[Any]) -> Iterator[str]:
    for name in (row.hours, *(rule.get("hours") for rule in row.rules)):
        if name is not None:
            yield name
