import asyncio

import pytest
from starlette.responses import Response

from trunkline.errors import StoreError
from trunkline.gateway.api.idempotency import OrderDesk, fingerprint, key_of
from trunkline.gateway.dialling import DialOrder
from trunkline.ports import Claimed, Conflict, Known, Refuse
from trunkline.types import DEFAULT_TENANT, E164, CallId, TenantId

ORDER = DialOrder(E164("+12025550123"))
BODY = b'{"to": "+12025550123"}'


class House:
    """Orders, switchboard and records; the database answers when `open` is set."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.dialled: list[CallId | None] = []
        self.refuses: Refuse | None = None
        self.release_fails = False
        self.desk = OrderDesk(self, self, self, self.dial)

    async def claim(self, tenant: TenantId, key: str, fingerprint: str, call_id: CallId) -> Claimed | Known | Conflict:
        await self.open.wait()
        return Claimed()

    async def release(self, tenant: TenantId, key: str, call_id: CallId) -> None:
        if self.release_fails:
            raise StoreError("away")

    async def dial(self, order: DialOrder) -> CallId | Refuse:
        self.dialled.append(order.call_id)
        assert order.call_id is not None
        return self.refuses or order.call_id

    def live(self, call_id: CallId) -> None:
        return None

    def lost(self, order: DialOrder) -> None:
        raise AssertionError("nothing was lost")

    async def get(self, tenant: TenantId, call_id: CallId) -> None:
        return None


def test_a_repeat_while_the_order_is_being_placed_is_told_to_come_back() -> None:
    async def scenario() -> None:
        house = House()
        first = asyncio.create_task(house.desk.place(DEFAULT_TENANT, "k", BODY, ORDER))
        await asyncio.sleep(0)
        meanwhile = await house.desk.place(DEFAULT_TENANT, "k", BODY, ORDER)
        assert isinstance(meanwhile, Response)
        assert (meanwhile.status_code, meanwhile.headers["retry-after"]) == (409, "1")
        assert house.dialled == []
        house.open.set()
        placed = await first
        assert house.dialled == [placed]

    asyncio.run(scenario())


def test_a_key_is_free_again_when_the_client_has_gone() -> None:
    async def scenario() -> None:
        house = House()
        first = asyncio.create_task(house.desk.place(DEFAULT_TENANT, "k", BODY, ORDER))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        house.open.set()
        assert isinstance(await house.desk.place(DEFAULT_TENANT, "k", BODY, ORDER), str)

    asyncio.run(scenario())


def test_a_refusal_is_told_even_when_the_key_cannot_be_freed() -> None:
    async def scenario() -> None:
        house = House()
        house.open.set()
        house.refuses, house.release_fails = Refuse("overloaded", "no line is free"), True
        assert await house.desk.place(DEFAULT_TENANT, "k", BODY, ORDER) == house.refuses

    asyncio.run(scenario())


def test_the_same_json_has_one_fingerprint_however_it_is_written() -> None:
    assert fingerprint(b'{"a": 1, "b": {"c": "\\u00e9"}}') == fingerprint('{"b":{"c":"é"},"a":1}'.encode())
    assert fingerprint(b'{"a": 1}') != fingerprint(b'{"a": 2}')


def test_a_key_is_one_header_quoted_or_bare() -> None:
    assert key_of([]) is None
    assert key_of(['"8e03978e-40d5-43dd-bc93-6894a57f9324"']) == key_of(["8e03978e-40d5-43dd-bc93-6894a57f9324"])
    assert isinstance(key_of(["a", "b"]), Response)
