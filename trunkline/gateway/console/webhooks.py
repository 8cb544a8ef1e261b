"""Pages of webhooks: who is told what happens, and what became of each telling.

webhooks                        POST webhooks/_new: made, with its secret, which is shown once
webhooks/KEY                    POST: changed; /_rotate, /_test, /_delete
webhooks/KEY/_again/DELIVERY    sent once more
"""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from trunkline.clock import Clock
from trunkline.gateway.api.webhooks import MAX_URL_CHARS, PREVIOUS_S_DEFAULT, Send, is_url, url_wanted
from trunkline.gateway.console.edge import Asked, Edge, of, to
from trunkline.gateway.console.forms import Form
from trunkline.gateway.hooks.signing import new_secret
from trunkline.hooks import EVENT_TYPES, PING, Attempt, Endpoint, Endpoints, Wanted

PAGE = 50


@dataclass(frozen=True, slots=True)
class WebhookParts:
    endpoints: Endpoints
    send: Send
    allow_private: bool


class WebhookPages:
    def __init__(self, edge: Edge, parts: WebhookParts, clock: Clock) -> None:
        self._edge, self._p, self._clock = edge, parts, clock

    def routes(self) -> list[Route]:
        edge = self._edge
        return [
            edge.get("webhooks", self.look),
            edge.get("webhooks/_new", self.fresh, "write"),
            edge.post("webhooks/_new", self.make),
            edge.get("webhooks/{key}", self.look_at),
            edge.post("webhooks/{key}", self.change),
            edge.post("webhooks/{key}/_rotate", self.rotate),
            edge.post("webhooks/{key}/_test", self.test),
            edge.post("webhooks/{key}/_delete", self.delete),
            edge.post("webhooks/{key}/_again/{delivery}", self.again),
        ]

    async def look(self, asked: Asked) -> Response:
        found = await self._p.endpoints.list(asked.who.tenant)
        return self._edge.show(asked, "webhooks.html", {"items": found})

    async def fresh(self, asked: Asked) -> Response:
        return self._form(asked, Form({"enabled": True}), None)

    async def make(self, asked: Asked) -> Response:
        wanted, wrong = self._wanted(asked)
        if wrong:
            return self._form(asked, Form(asked.fields, wrong), None, 422)
        secret = new_secret()
        made = await self._p.endpoints.add(asked.who.tenant, wanted, secret)
        if made is None:
            why = "There are as many as there may be: delete one first."
            return self._form(asked, Form(asked.fields, why=why), None, 409)
        return await self._one(asked, made, secret=secret)

    def _wanted(self, asked: Asked) -> tuple[Wanted, dict[str, str]]:
        typed = asked.fields
        url = str(typed.get("url", "")).strip()
        fine = len(url) <= MAX_URL_CHARS and is_url(url, self._p.allow_private)
        chosen = typed.get("events")
        names = {name for name, on in _flat(chosen).items() if on == "true"}
        events = tuple(event for event in EVENT_TYPES if event in names)
        wanted = Wanted(url, events, typed.get("enabled") == "true", typed.get("transcripts") == "true")
        return wanted, {} if fine else {"url": url_wanted(self._p.allow_private)}

    # --- one ---

    async def _of(self, asked: Asked) -> Endpoint:
        found = await self._p.endpoints.get(asked.who.tenant, asked.key)
        if found is None:
            raise HTTPException(404, "There is no such webhook.")
        return found

    async def look_at(self, asked: Asked) -> Response:
        return await self._one(asked, await self._of(asked))

    async def change(self, asked: Asked) -> Response:
        there = await self._of(asked)
        wanted, wrong = self._wanted(asked)
        if wrong:
            return await self._one(asked, there, Form(asked.fields, wrong), 422)
        after = await self._p.endpoints.change(asked.who.tenant, there.id, wanted, asked.version)
        if after == "changed":
            why = "Somebody changed it while you were at it. What you typed is below: saving takes its place."
            return await self._one(asked, there, Form(asked.fields, why=why), 412)
        return to(of("webhooks", there.id), said="saved")

    async def rotate(self, asked: Asked) -> Response:
        there, secret = await self._of(asked), new_secret()
        until = self._clock.wall() + timedelta(seconds=PREVIOUS_S_DEFAULT)
        found = await self._p.endpoints.rotate(asked.who.tenant, there.id, secret, until)
        return await self._one(asked, found or there, secret=secret if found is not None else "")

    async def test(self, asked: Asked) -> Response:
        there, now = await self._of(asked), self._clock.wall()
        keys = await self._p.endpoints.secrets(there.tenant, there.id)
        ping = {"type": PING, "timestamp": now.isoformat(), "data": {"webhook_id": there.id}}
        attempt = await self._p.send(there.url, f"ping_{now.timestamp():.6f}", json.dumps(ping).encode(), keys)
        return await self._one(asked, there, attempt=attempt)

    async def delete(self, asked: Asked) -> Response:
        if await self._p.endpoints.delete(asked.who.tenant, asked.key, asked.version) == "changed":
            why = "Somebody changed it meanwhile: look at it, then delete it."
            return await self._one(asked, await self._of(asked), status=412, why=why)
        return to("webhooks", said="deleted")

    async def again(self, asked: Asked) -> Response:
        there = await self._of(asked)
        delivery = str(asked.request.path_params["delivery"])
        found = await self._p.endpoints.redeliver(asked.who.tenant, there.id, delivery)
        if found is None:
            raise HTTPException(404, "There is no such delivery any more.")
        if found == "disabled":
            raise HTTPException(409, "This webhook is switched off: switch it on first.")
        return to(of("webhooks", there.id), said="sent")

    # --- what is shown ---

    def _form(self, asked: Asked, form: Form, endpoint: Endpoint | None, status: int = 200, **more: Any) -> Response:
        context = {
            "f": form,
            "endpoint": endpoint,
            "events": EVENT_TYPES,
            "secret": "",
            "attempt": None,
            "deliveries": (),
            "following": "",
            **more,
        }
        return self._edge.show(asked, "webhooks_one.html", context, status)

    async def _one(
        self,
        asked: Asked,
        endpoint: Endpoint,
        form: Form | None = None,
        status: int = 200,
        *,
        secret: str = "",
        attempt: Attempt | None = None,
        why: str = "",
    ) -> Response:
        try:
            page = await self._p.endpoints.deliveries(
                endpoint.tenant, endpoint.id, limit=PAGE, cursor=asked.query("cursor", 200) or None, state=None
            )
        except ValueError:
            raise HTTPException(400, "This page is not there any more. Please begin at the first.") from None
        more = {
            "secret": secret,
            "attempt": attempt,
            "deliveries": page.deliveries,
            "following": page.next_cursor or "",
        }
        return self._form(asked, form or Form(_shown(endpoint), why=why), endpoint, status, **more)


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    events: dict[str, Any] = {}
    for event in endpoint.events:
        family, _, name = event.partition(".")
        events.setdefault(family, {})[name] = True
    return {
        "url": endpoint.url,
        "enabled": endpoint.enabled,
        "transcripts": endpoint.transcripts,
        "events": events,
    }


def _flat(chosen: Any) -> dict[str, str]:
    """`call.ended` is two steps of a path."""
    found: dict[str, str] = {}
    for family, names in chosen.items() if isinstance(chosen, dict) else ():
        if isinstance(names, dict):
            found |= {f"{family}.{name}": str(on) for name, on in names.items()}
    return found
