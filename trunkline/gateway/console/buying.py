"""Pages that get numbers and trunks from carriers: a number is searched, bought and pointed at us at Twilio; a SIP
trunk comes from its carrier's template.

    numbers/_buy            ?country&kind&area_code&contains; POST buys one, which costs money
    trunks/_template        ?kind and a few answers: our settings and what to enter at the far side; POST makes it
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast, get_args

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from trunkline.errors import ConfigError
from trunkline.gateway.console.edge import Asked, Edge, of, to
from trunkline.gateway.console.forms import Form, given, words
from trunkline.numbers.carriers import templates
from trunkline.numbers.carriers.account import Available, NumberAccount, NumberKind, Prices, Search, Terms
from trunkline.numbers.carriers.owning import Acquired, acquire, pointing, unfit
from trunkline.numbers.desk import Desk
from trunkline.numbers.resources import is_number
from trunkline.owned import DeskError
from trunkline.types import DEFAULT_TENANT, E164

KINDS: Sequence[NumberKind] = get_args(NumberKind)
_FIELDS = {
    "--name": "name",
    "--host": "host",
    "--address": "public_address",
    "--peer": "peers",
    "--region": "region",
    "template": "kind",
}


class BuyPages:
    def __init__(self, edge: Edge, desk: Desk, account: NumberAccount, origin: str) -> None:
        """`account`: the gateway's own, so for the default tenant. `origin`: where Twilio reaches us."""
        self._edge, self._desk, self._account, self._origin = edge, desk, account, origin

    def routes(self) -> list[Route]:
        return [self._edge.get("numbers/_buy", self.search, "write"), self._edge.post("numbers/_buy", self.buy)]

    async def search(self, asked: Asked) -> Response:
        _ours(asked)
        typed = {name: asked.query(name, 20).strip() for name in ("country", "kind", "area_code", "contains")}
        if not typed["country"]:
            return self._show(asked, Form({"country": "US", "kind": "local"}))
        kind = typed["kind"] if typed["kind"] in KINDS else "local"
        search = Search(typed["country"].upper(), cast(NumberKind, kind), typed["area_code"], typed["contains"])
        if why := unfit(search):
            return self._show(asked, Form(typed, why=why), status=422)
        found = await self._account.available(search)
        if not isinstance(found, Sequence):
            return self._show(asked, Form(typed, why=f"Twilio does not say: {found.why}"), status=502)
        prices = await self._account.prices(search.country)
        price = prices.by_kind.get(search.kind) if isinstance(prices, Prices) else None
        currency = prices.currency if isinstance(prices, Prices) else ""
        return self._show(asked, Form(typed), found, price, currency)

    def _show(
        self,
        asked: Asked,
        form: Form,
        found: Sequence[Available] | None = None,
        price: Decimal | None = None,
        currency: str = "",
        status: int = 200,
    ) -> Response:
        context = {"f": form, "found": found, "price": price, "currency": currency, "kinds": KINDS}
        return self._edge.show(asked, "numbers_buy.html", context, status)

    async def buy(self, asked: Asked) -> Response:
        """It is bought first, since only then is it ours; what the desk refuses then says that it was bought."""
        _ours(asked)
        number, who = E164(str(asked.form.get("number", ""))), asked.who
        if not is_number(number):
            raise HTTPException(422, "number: a phone number as the search shows it")
        if asked.form.get("sure") != "true":
            why = f"{number} costs money every month: tick the box of the number that you want."
            return self._show(asked, Form({"country": "US", "kind": "local"}, why=why), status=422)
        terms = Terms(pointing=pointing(self._origin))
        got = await acquire(self._account, number, terms)
        if not isinstance(got, Acquired):
            return self._show(asked, Form({}, why=f"{got.why}. {got.remedy}"), status=502)
        fields = {"number": got.owned.number, "carrier_id": got.owned.id}
        try:
            await self._desk.make(who.tenant, who.actor, "numbers", fields)
        except DeskError as error:
            if error.code != "taken":
                why = f"{number} is bought and yours, but it is not in your list: {error.why}"
                return self._show(asked, Form({}, why=why), status=409)
        return to(of("numbers", number), said="made")


def _ours(asked: Asked) -> None:
    if asked.who.tenant != DEFAULT_TENANT:
        raise HTTPException(403, "Numbers are bought with the gateway's own account, for its own tenant only.")


class TemplatePages:
    def __init__(self, edge: Edge, desk: Desk, address: str = "") -> None:
        """`address`: that we are reached at over SIP, where it is known."""
        self._edge, self._desk, self._address = edge, desk, address

    def routes(self) -> list[Route]:
        path = "trunks/_template"
        return [self._edge.get(path, self.look, "write"), self._edge.post(path, self.make)]

    async def look(self, asked: Asked) -> Response:
        return self._show(asked, Form({"kind": "twilio", "public_address": self._address}))

    def _show(self, asked: Asked, form: Form, made: templates.Made | None = None, status: int = 200) -> Response:
        context = {"f": form, "made": made, "kinds": [(name, name.capitalize()) for name in templates.names()]}
        return self._edge.show(asked, "trunks_template.html", context, status)

    async def make(self, asked: Asked) -> Response:
        typed, who = asked.fields, asked.who
        try:
            made = templates.template(str(typed.get("kind", "")), _answers(typed))
        except ConfigError as error:
            field = _FIELDS.get(error.key, error.key.rpartition(".")[2])
            wrong = {field: str(error.allowed)}
            return self._show(asked, Form(typed, wrong, f"{field}: {error.allowed}"), status=422)
        if asked.do != "make":
            return self._show(asked, Form(typed), made)
        settings = {name: value for name, value in made.settings.items() if value != templates.SECRET}
        secret = given({"auth_password": typed.get("auth_password")})
        try:
            fields = {"name": made.name, "settings": settings, **secret}
            await self._desk.make(who.tenant, who.actor, "trunks", fields)
        except DeskError as error:
            return self._show(asked, Form(typed, error.fields, error.why), made, 409 if error.code == "taken" else 422)
        return to(of("trunks", made.name), said="made")


def _answers(typed: Mapping[str, Any]) -> templates.Answers:
    def text(name: str) -> str:
        return str(typed.get(name, "")).strip()

    return templates.Answers(
        text("name"),
        host=text("host"),
        public_address=text("public_address"),
        auth_username=text("auth_username"),
        region=text("region"),
        caller_id=text("caller_id"),
        country=text("country"),
        register=typed.get("register") == "true",
        secure=typed.get("secure") == "true",
        peers=words(typed.get("peers")),
        numbers=words(typed.get("numbers")),
    )
