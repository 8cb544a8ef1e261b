"""Pages of what holds for all of a tenant: its settings with the outage switch, what has changed, and all as a file."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from zoneinfo import available_timezones

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from trunkline.gateway.console.edge import Asked, Edge, to
from trunkline.gateway.console.forms import Difference, Form, differences
from trunkline.gateway.console.kinds import tenant_fields
from trunkline.numbers import ascode
from trunkline.numbers.desk import Desk
from trunkline.numbers.resources import KINDS, Tenant
from trunkline.owned import Body, DeskError
from trunkline.types import TenantId

PAGE = 50
WORDS = {
    "create": "made",
    "replace": "changed",
    "delete": "deleted",
    "publish": "published",
    "roll_back": "rolled back",
    "add_version": "added a version to",
    "sign_in": "signed in:",
    "sign_in_failed": "was refused the sign-in:",
}
_ACCOUNTS = ("users", "keys")


@dataclass(frozen=True, slots=True)
class _Now:
    body: Body
    version: int
    """0: nothing was said yet."""


class TenantPages:
    def __init__(self, edge: Edge, desk: Desk) -> None:
        self._edge, self._desk = edge, desk

    def routes(self) -> list[Route]:
        edge = self._edge
        return [
            edge.get("tenant", self.look),
            edge.post("tenant", self.save, "admin"),
            edge.post("tenant/_outage", self.outage, "admin"),
            edge.get("changes", self.changes),
            edge.get("code", self.code),
            edge.post("code", self.apply),
            edge.get("code/_export", self.export),
        ]

    # --- settings ---

    async def _now(self, tenant: TenantId) -> _Now:
        kept = await self._desk.store.get(tenant, Tenant.kind, "tenant")
        return _Now(Tenant().model_dump(mode="json"), 0) if kept is None else _Now(kept.body, kept.version)

    async def look(self, asked: Asked) -> Response:
        now = await self._now(asked.who.tenant)
        return self._show(asked, now, Form(now.body))

    async def save(self, asked: Asked) -> Response:
        now, fields = await self._now(asked.who.tenant), tenant_fields(asked.fields)
        fields["outage"] = now.body["outage"]  # it has a form of its own
        try:
            version = await self._replace(asked, fields, asked.version)
        except DeskError as error:
            form = Form(asked.fields, error.fields, error.why)
            if error.code != "stale":
                return self._show(asked, now, form, 422, asked.version)
            mine = {name: value for name, value in fields.items() if name in now.body}
            return self._show(asked, now, form, 412, meanwhile=differences({n: now.body[n] for n in mine}, mine))
        return to("tenant", said="same" if version == now.version else "saved")

    async def outage(self, asked: Asked) -> Response:
        """What is wanted is said, so that two who press at once want the same; a second thought only to switch on."""
        now, on = await self._now(asked.who.tenant), asked.form.get("on") == "true"
        if on and asked.form.get("sure") != "true":
            return self._show(asked, now, Form(now.body), 422, unsure=True)
        await self._replace(asked, {**now.body, "outage": on}, None)
        return to("tenant", said="outage" if on else "normal")

    async def _replace(self, asked: Asked, fields: Mapping[str, Any], version: int | None) -> int:
        who = asked.who
        kept = await self._desk.replace(who.tenant, who.actor, Tenant.kind, "tenant", fields, version)
        return kept.version

    def _show(
        self,
        asked: Asked,
        now: _Now,
        form: Form,
        status: int = 200,
        version: int | None = None,
        meanwhile: Sequence[Difference] = (),
        *,
        unsure: bool = False,
    ) -> Response:
        context = {
            "f": form,
            "at_version": now.version if version is None else version,
            "outage": now.body["outage"],
            "outage_number": now.body["outage_number"],
            "outage_text": now.body["outage_text"],
            "meanwhile": meanwhile,
            "unsure": unsure,
            "zones": zones(),
        }
        return self._edge.show(asked, "tenant.html", context, status)

    # --- who changed what ---

    async def changes(self, asked: Asked) -> Response:
        kind, key = asked.query("kind"), asked.query("key")
        try:
            found, cursor = await self._desk.store.changes(
                asked.who.tenant, limit=PAGE, cursor=asked.query("cursor", 200) or None, kind=kind, key=key
            )
        except ValueError:
            raise HTTPException(400, "This page is not there any more. Please begin at the first.") from None
        context = {
            "items": found,
            "diffs": [differences(each.before, each.after) for each in found],
            "words": WORDS,
            "kinds": [*KINDS, *_ACCOUNTS],
            "of_kind": kind,
            "of_key": key,
            "following": urlencode({"kind": kind, "key": key, "cursor": cursor}) if cursor else "",
        }
        return self._edge.show(asked, "changes.html", context)

    # --- as a file ---

    async def code(self, asked: Asked) -> Response:
        return self._code(asked)

    def _code(
        self,
        asked: Asked,
        text: str = "",
        steps: Sequence[ascode.Step] | None = None,
        wrong: str = "",
        status: int = 200,
        *,
        prune: bool = False,
    ) -> Response:
        diffs = [differences(step.before, step.after) for step in (steps or [])[:200]]
        context = {"text": text, "steps": steps, "diffs": diffs, "wrong": wrong, "prune": prune}
        return self._edge.show(asked, "code.html", context, status)

    async def export(self, asked: Asked) -> Response:
        document = await ascode.export(self._desk, asked.who.tenant)
        headers = {"Content-Disposition": 'attachment; filename="desk.toml"'}
        return Response(
            await asyncio.to_thread(ascode.written, document), media_type="application/toml", headers=headers
        )

    async def apply(self, asked: Asked) -> Response:
        """What would change is shown first; applied is the text that was shown."""
        text, prune = str(asked.form.get("text", "")), asked.form.get("prune") == "true"
        if (file := asked.files.get("file")) is not None and file.filename:
            try:
                text = (await file.read()).decode("utf-8-sig")
            except UnicodeDecodeError:
                return self._code(asked, "", None, "The file is no text in UTF-8.", 422, prune=prune)
        keep, who = asked.do == "apply", asked.who
        try:
            document = ascode.read_document(text, is_json=text.lstrip().startswith("{"))
            steps = await ascode.apply(self._desk, who.tenant, who.actor, document, prune=prune, keep=keep)
        except DeskError as error:
            return self._code(asked, text, None, error.why[:2000], 422, prune=prune)
        return to("code", said="applied") if keep else self._code(asked, text, steps, prune=prune)


def zones() -> list[str]:
    return sorted(zone for zone in available_timezones() if "/" in zone or zone == "UTC")
