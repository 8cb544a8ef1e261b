"""A Twilio account whose answers are scripted: the port that rest.py has, without its wire."""

import asyncio
from collections.abc import Sequence

from trunkline.gateway.twilio.account import CallOrder, Listed, NotTaken, Taken, Unknown
from trunkline.testing.board import sid
from trunkline.types import E164, CallSid

Answer = Taken | NotTaken | Unknown


class FakeAccount:
    def __init__(self) -> None:
        self.answers: list[Answer] = []
        """To create, in order; afterwards Taken with sid(1), sid(2)..."""
        self.orders: list[CallOrder] = []
        self.ended: list[CallSid] = []
        self.end_answers: list[Answer] = []
        self.listed: list[Listed] = []
        self.urls: dict[CallSid, list[str]] = {}
        self.looked = self.checked = 0
        self.login: NotTaken | Unknown | None = None
        self.gate: asyncio.Event | None = None

    async def create(self, order: CallOrder) -> Answer:
        self.orders.append(order)
        number = len(self.orders)
        if self.gate is not None:
            await self.gate.wait()
        return self.answers.pop(0) if self.answers else Taken(sid(number))

    async def recent(self, to_number: E164, from_number: E164) -> Sequence[Listed] | NotTaken | Unknown:
        self.looked += 1
        return self.listed

    async def requested(self, call_sid: CallSid) -> Sequence[str] | NotTaken | Unknown:
        return self.urls.get(call_sid, [])

    async def end(self, call_sid: CallSid) -> Answer:
        self.ended.append(call_sid)
        return self.end_answers.pop(0) if self.end_answers else Taken(call_sid)

    async def check(self) -> NotTaken | Unknown | None:
        self.checked += 1
        return self.login

    async def close(self) -> None:
        pass
