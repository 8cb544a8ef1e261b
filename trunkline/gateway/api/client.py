"""A running gateway's API from outside: what `trunkline dial` does. The one who dials is told what happens as it
happens, from the call's own record."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from trunkline.errors import ConfigError, PeerError
from trunkline.gateway.dialling import DialOrder

POLL_S = 0.3
PATIENCE_POLLS = 40  # of silence, or without a word how the call ended
TIMEOUT_S = 5.0
GOODBYE_S = 2.0

Record = Mapping[str, Any]

_WORDS = {
    "ringing": "ringing",
    "early_media": "early media",
    "answered": "answered",
    "resumed": "resumed",
    "transfer": "transfer",
}
_PROVISIONAL = {180: "ringing", 181: "forwarded", 182: "queued", 183: "progress"}


@dataclass(frozen=True, slots=True)
class Refused:
    code: str
    why: str

    def __str__(self) -> str:
        return f"{self.code}: {self.why}" if self.code else self.why


@dataclass(frozen=True, slots=True)
class Step:
    at_s: float
    """Since the call began."""
    what: str


class Progress:
    """A record as it grows -> what is new in it. Read leniently; nothing is told twice."""

    def __init__(self) -> None:
        self._events = self._turns = 0
        self._last = ""
        self._over = False

    def news(self, record: Record) -> list[Step]:
        events, turns = _dicts(record.get("events")), _dicts(record.get("turns"))
        fresh = [(_at(record, e), _event(e)) for e in events[self._events :]]
        fresh += [(_at(record, t), line) for t in turns[self._turns :] for line in _turn(t)]
        self._events, self._turns = max(self._events, len(events)), max(self._turns, len(turns))
        fresh.sort(key=lambda step: step[0])
        if ended(record) and not self._over:
            self._over = True
            reason, detail = record.get("end_reason"), record.get("end_detail")
            fresh.append(
                (_seconds(record, record.get("ended_at")), f"ended: {reason}" + (f" ({detail})" if detail else ""))
            )
        steps = []
        for at_s, what in fresh:
            if what and what != self._last:  # 180 after 180
                steps.append(Step(at_s, _printable(what)))
                self._last = what
        return steps


def ended(record: Record) -> bool:
    return record.get("ended_at") is not None


def answered(record: Record) -> bool:
    return record.get("answered_at") is not None


def _event(event: Record) -> str:
    kind, data = event.get("kind"), event.get("data")
    data = data if isinstance(data, dict) else {}
    if kind == "dialling":
        return f"dialling over {data['trunk']}" if data.get("trunk") else "dialling"
    if kind == "progress":
        code = data.get("code", data.get("status"))
        return _PROVISIONAL.get(code, "") if isinstance(code, int) else ""
    return _WORDS.get(str(kind), "")


def _turn(turn: Record) -> list[str]:
    heard, said = turn.get("caller_text"), turn.get("agent_text")
    cut = " ..." if turn.get("interrupted") else ""
    return [*([f"they:  {heard}"] if heard else []), *([f"agent: {said}{cut}"] if said else [])]


def _at(record: Record, part: Record) -> float:
    return _seconds(record, part.get("at"))


def _seconds(record: Record, at: Any) -> float:
    try:
        return (datetime.fromisoformat(at) - datetime.fromisoformat(record["started_at"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return 0.0


def _dicts(value: Any) -> list[Record]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _printable(text: str) -> str:
    """What a caller said, or a far end's reason, does not command the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


class Gateway:
    """Raises ConfigError when nobody, or something else, answers at `origin` or the key is wrong."""

    def __init__(self, http: httpx.AsyncClient, origin: str, api_key: str) -> None:
        self._http, self._origin = http, origin.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def dial(self, order: DialOrder) -> str | Refused:
        """The call's id. Not repeated when the answer is lost: it may be ringing."""
        body: dict[str, Any] = {"to": order.to_number, "ring_timeout_s": order.ring_timeout_s}
        body |= {"from": order.from_number} if order.from_number else {}
        body |= {"trunk": order.trunk} if order.trunk else {}
        body |= {"purpose": order.purpose} if order.purpose else {}
        body |= {"attributes": dict(order.attributes)} if order.attributes else {}
        try:
            response = await self._http.post(
                f"{self._origin}/v1/calls", json=body, headers=self._headers, timeout=TIMEOUT_S
            )
            answer = response.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self._nobody() from error
        if not isinstance(answer, dict):
            raise self._nobody()
        if response.status_code == 201 and isinstance(answer.get("id"), str):
            return str(answer["id"])
        if response.status_code == 401:
            raise ConfigError("--api-key", "(hidden)", "one of the gateway's http.api_key")
        if "title" not in answer:
            raise self._nobody()
        return Refused(str(answer.get("code", "")), _printable(str(answer.get("detail") or answer["title"])))

    async def call(self, call_id: str) -> Record | None:
        """The record as it is now; None where it cannot be had now."""
        try:
            url = f"{self._origin}/v1/calls/{call_id}"
            response = await self._http.get(url, headers=self._headers, timeout=TIMEOUT_S)
            record = response.json() if response.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    async def hang_up(self, call_id: str) -> None:
        try:
            url = f"{self._origin}/v1/calls/{call_id}"
            await self._http.delete(url, headers=self._headers, timeout=GOODBYE_S)
        except httpx.HTTPError:
            return  # its own limits end it

    def _nobody(self) -> ConfigError:
        return ConfigError("--gateway", self._origin, "the origin of a running gateway (trunkline serve)")


async def follow(gateway: Gateway, call_id: str, on_step: Callable[[Step], None], poll_s: float = POLL_S) -> Record:
    """Until it has ended: the whole record. Cancelled (Ctrl-C), it hangs up. Raises PeerError when the gateway is not
    heard of any more."""
    progress, without_news = Progress(), 0
    try:
        while without_news < PATIENCE_POLLS:
            record = await gateway.call(call_id)
            if record is not None:
                for step in progress.news(record):
                    on_step(step)
                if ended(record):
                    return record
            without_news = 0 if record is not None and record.get("live") else without_news + 1
            await asyncio.sleep(poll_s)
    except asyncio.CancelledError:
        await gateway.hang_up(call_id)
        raise
    raise PeerError(f"the gateway does not say any more how call {call_id} goes")


async def dial(
    order: DialOrder, origin: str, api_key: str, on_step: Callable[[Step], None], *, wait: bool
) -> Refused | Record:
    """Without `wait`: what is known when it begins to be dialled, its `id`."""
    async with httpx.AsyncClient(trust_env=False) as http:
        gateway = Gateway(http, origin, api_key)
        placed = await gateway.dial(order)
        if isinstance(placed, Refused):
            return placed
        return await follow(gateway, placed, on_step) if wait else {"id": placed}
