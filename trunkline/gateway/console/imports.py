"""A page that brings a CSV of numbers: first what it would do and each mistake by its line, then all of it, or nothing.

The file's text goes with the preview's form, so what is applied is what was shown; nothing of it is kept here.
"""

from starlette.responses import Response
from starlette.routing import Route

from trunkline.gateway.console.edge import Asked, Edge, to
from trunkline.numbers.csvimport import COLUMNS, Preview
from trunkline.numbers.desk import Desk
from trunkline.numbers.importing import bring
from trunkline.owned import DeskError

MAX_CHARS = 3 * 1024 * 1024
SHOWN = 200


class ImportPages:
    def __init__(self, edge: Edge, desk: Desk) -> None:
        self._edge, self._desk = edge, desk

    def routes(self) -> list[Route]:
        return [
            self._edge.get("numbers/_import", self.look, "write"),
            self._edge.post("numbers/_import", self.bring),
        ]

    async def look(self, asked: Asked) -> Response:
        return self._show(asked)

    def _show(
        self, asked: Asked, text: str = "", found: Preview | None = None, wrong: str = "", status: int = 200
    ) -> Response:
        context = {
            "text": text,
            "found": found,
            "wrong": wrong,
            "columns": COLUMNS,
            "shown": SHOWN,
            "country": str(asked.form.get("country", "")),
        }
        return self._edge.show(asked, "numbers_import.html", context, status)

    async def bring(self, asked: Asked) -> Response:
        text = str(asked.form.get("text", ""))
        if (file := asked.files.get("file")) is not None and file.filename:
            data = await file.read()
            try:
                text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
            except UnicodeDecodeError:
                return self._show(asked, wrong="The file is no text in UTF-8: save it as CSV UTF-8.", status=422)
        if not text.strip():
            return self._show(asked, wrong="Choose a file, or paste its text.", status=422)
        if len(text) > MAX_CHARS:
            why = f"More than {MAX_CHARS:,} characters: divide it, or use trunkline numbers import."
            return self._show(asked, wrong=why, status=413)
        country = str(asked.form.get("country", "")).strip().upper() or None
        keep, skip = asked.do in ("bring", "bring_good"), asked.do == "bring_good"
        who = asked.who
        try:
            found = await bring(self._desk, who.tenant, who.actor, text, country, keep=keep, skip_mistakes=skip)
        except DeskError as error:
            return self._show(asked, text, None, f"Nothing was imported. {error.why}", 409)
        if keep and (found.clean or skip) and (found.create or found.change):
            return to("numbers", said="imported")
        return self._show(asked, text, found, status=200 if found.clean else 422)
