"""`trunkline numbers ...`: numbers at carriers, trunks from templates, files of numbers, and whether a number can be
called. Exit status 1: it did not come about; 2: a setting or an argument is wrong."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, is_dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer
from pydantic import BaseModel

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError
from trunkline.settings import Settings, load
from trunkline.types import DEFAULT_TENANT, TenantId

if TYPE_CHECKING:
    from trunkline.gateway.twilio.numbers import TwilioNumbers
    from trunkline.numbers.carriers.account import Listing, NotTaken, Owned, Prices, Unknown
    from trunkline.numbers.csvimport import Preview
    from trunkline.numbers.e164 import Number

app = typer.Typer(no_args_is_help=True, help="Phone numbers: at carriers, on trunks, from files.")

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON on stdout.")]
Country = Annotated[str, typer.Option("--country", help="Two letters: how numbers without + are read.")]
One = Annotated[str, typer.Argument(help="+COUNTRY NUMBER.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
MAX_LISTED = 10_000

T = TypeVar("T")


@app.command()
def search(
    country: Annotated[str, typer.Argument(help="Two letters: US, GB.")],
    kind: Annotated[Literal["local", "mobile", "toll_free"], typer.Option(help="Of number.")] = "local",
    area_code: Annotated[str, typer.Option(help="United States and Canada.")] = "",
    contains: Annotated[str, typer.Option(help="Digits or letters, * for any one: 555*00, ACME.")] = "",
    capability: Annotated[list[str] | None, typer.Option(help="voice, sms, mms, fax. Repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Numbers that Twilio sells, with what they cost a month where it says."""
    from trunkline.numbers.carriers.account import NotTaken, Search, Unknown
    from trunkline.numbers.carriers.owning import unfit

    wanted = _capabilities(capability or ["voice"])
    asked = Search(country.upper(), kind, area_code, contains, wanted, limit)
    if why := unfit(asked):
        raise ConfigError("search", country, why)

    async def work(account: "TwilioNumbers") -> "tuple[Any, Prices | NotTaken | Unknown]":
        found = await account.available(asked)
        return found, await account.prices(asked.country)

    found, prices = _asked(config, work)
    if isinstance(found, NotTaken | Unknown):
        _not_done(found, f"there is no list of {kind} numbers of {asked.country}", as_json)
    price = None if isinstance(prices, NotTaken | Unknown) else prices.by_kind.get(kind)
    currency = "" if isinstance(prices, NotTaken | Unknown) else prices.currency
    if as_json:
        _print({"numbers": found, "month": price, "currency": currency or None})
        return
    for each in found:
        where = ", ".join(filter(None, (each.locality, each.region)))
        needs = "" if each.address_required == "none" else f"  needs an address ({each.address_required})"
        typer.echo(f"{each.number:17}{' '.join(sorted(each.capabilities)):20}{where}{needs}")
    if not found:
        typer.echo("none")
    elif price is not None:
        typer.echo(f"{price} {currency} a month each")


@app.command()
def buy(
    number: One,
    label: Annotated[str, typer.Option(help="Its name at Twilio.")] = "",
    address: Annotated[str, typer.Option(help="AD..., where one must be on file.")] = "",
    bundle: Annotated[str, typer.Option(help="BU..., where a country's regulation wants papers.")] = "",
    point: Annotated[bool, typer.Option(help="Point it at http.public_url at once.")] = True,
    yes: Yes = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Buy a number of Twilio's. It costs money every month, is ordered once, and looked for when the answer is lost."""
    from trunkline.numbers.carriers import owning
    from trunkline.numbers.carriers.account import Terms

    read, settings = _number(number), load(config)
    pointing = owning.pointing(_public(settings)) if point else None
    if not yes:
        _confirm(f"buy {read.e164}, which costs money every month?")
    terms = Terms(label, pointing, address, bundle)
    outcome = _asked(config, lambda account: owning.acquire(account, read.e164, terms))
    if not isinstance(outcome, owning.Acquired):
        _failed(outcome, as_json)
    if as_json:
        _print(outcome)
        return
    typer.echo(f"{outcome.owned.number}: " + ("bought" if outcome.bought else "yours already; nothing was ordered"))
    for wrong in owning.mispointed(outcome.owned, pointing) if pointing else ():
        typer.echo(f"  {wrong}")


@app.command()
def owned(
    number: Annotated[str, typer.Argument(help="+COUNTRY NUMBER (default: all).")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """The Twilio account's numbers, and whether their calls come here. Exit status 1 when NUMBER is not among them."""
    from trunkline.numbers.carriers.account import Listing, NotTaken, Unknown

    async def work(account: "TwilioNumbers") -> "Listing | NotTaken | Unknown":
        if not number:
            return await account.owned(MAX_LISTED)
        found = await account.find(_number(number).e164)
        if isinstance(found, NotTaken | Unknown):
            return found
        return Listing([found] if found else [])

    found = _asked(config, work)
    if isinstance(found, NotTaken | Unknown):
        _not_done(found, "there is no list", as_json)
    origin = load(config).http.public_url
    if as_json:
        _print({"numbers": [_shown(each, origin) for each in found.numbers], "complete": found.complete})
    else:
        for each in found.numbers:
            wrong = _wrong(each, origin)
            typer.echo(f"{each.number:17}{each.label:20}" + ("comes here" if not wrong else "; ".join(wrong)))
        if not found.complete:
            typer.echo(f"and more than {MAX_LISTED:,}")
        if not found.numbers:
            typer.echo(f"{number} is no number of the account" if number else "none")
    if number and not found.numbers:
        raise typer.Exit(1)


@app.command()
def point(
    number: One,
    detach: Annotated[bool, typer.Option("--detach", help="Also away from a SIP trunk or application.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Have Twilio ask http.public_url what to do with calls to a number."""
    from trunkline.numbers.carriers import owning
    from trunkline.numbers.carriers.account import Owned

    read, wanted = _number(number), owning.pointing(_public(load(config)))
    outcome = _asked(config, lambda account: owning.point(account, read.e164, wanted, detach=detach))
    if not isinstance(outcome, Owned):
        _failed(outcome, as_json)
    if as_json:
        _print(outcome)
    else:
        typer.echo(f"{outcome.number}: asks {outcome.voice_url}")


@app.command()
def release(number: One, yes: Yes = False, config: Config = None, as_json: AsJson = False) -> None:
    """Give a number back to Twilio. It is gone for good: whoever wants it may buy it."""
    from trunkline.numbers.carriers import owning
    from trunkline.numbers.carriers.account import Released

    read = _number(number)
    if not yes:
        _confirm(f"release {read.e164}? It is gone for good")
    outcome = _asked(config, lambda account: owning.release(account, read.e164))
    if not isinstance(outcome, Released):
        _failed(outcome, as_json)
    if as_json:
        _print(outcome)
    else:
        typer.echo(f"{read.e164}: " + ("released" if outcome.number_id else "is no number of the account"))


@app.command("read")
def read_(
    numbers: Annotated[list[str], typer.Argument(help="Numbers, ranges, or beginnings and a *.")],
    country: Country = "",
    as_json: AsJson = False,
) -> None:
    """What a number is by its country's numbering plan: E.164, country, kind. Exit status 1 when one is none."""
    from trunkline.numbers import e164

    wrong, shown = 0, []
    for written in numbers:
        try:
            found = e164.span(written, country.upper() or None)
        except e164.BadNumber as bad:
            wrong += 1
            shown.append({"written": written, "wrong": bad.why})
            continue
        shown.append({"written": written} | (asdict(found) if isinstance(found, e164.Number) else {"span": str(found)}))
    if as_json:
        _print({"numbers": shown})
    else:
        for each in shown:
            told = each.get("wrong") or each.get("span")
            told = told or f"{each['e164']}  {each['country'] or 'no country'}  {each['kind']}"
            typer.echo(f"{each['written']}: {told}")
    raise typer.Exit(1 if wrong else 0)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV with a header; one column is `number`.")],
    country: Country = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look at it.")] = False,
    skip_mistakes: Annotated[bool, typer.Option("--skip-mistakes", help="Take the lines without one.")] = False,
    tenant: Annotated[str, typer.Option(help="Whose.")] = DEFAULT_TENANT,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Bring a file of numbers into the desk, in one transaction: every mistake is told by its line, and with one
    nothing is written. Exit status 1 when there is one."""
    from trunkline.ascode import desk_of
    from trunkline.keeping import opened, who
    from trunkline.numbers.importing import bring
    from trunkline.owned import DeskError

    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError("FILE", str(file), f"a readable file ({(error.strerror or 'unreadable').lower()})") from error

    async def work() -> "Preview":
        async with opened(load(config)) as kept:
            desk, actor = await desk_of(kept), f"cli:{who()}"
            return await bring(
                desk,
                TenantId(tenant),
                actor,
                data,
                country.upper() or None,
                keep=not dry_run,
                skip_mistakes=skip_mistakes,
            )

    try:
        found = asyncio.run(work())
    except DeskError as error:
        raise ConfigError("import", file.name, error.why) from None
    written = not dry_run and (found.clean or skip_mistakes)
    if as_json:
        _print({"written": written, **asdict(found)})
    else:
        typer.echo(("done: " if written else "it would be: ") + found.summary())
        for mistake in found.mistakes:
            typer.echo(f"  {mistake}")
        if found.mistakes_count > len(found.mistakes):
            typer.echo(f"  and {found.mistakes_count - len(found.mistakes):,} more")
        if not written and not dry_run:
            typer.echo("nothing was written: mend the lines, or take the others with --skip-mistakes")
    raise typer.Exit(0 if found.clean else 1)


@app.command("trunk-template")
def trunk_template(
    kind: Annotated[str, typer.Argument(help="twilio, telnyx, asterisk or generic.")],
    name: Annotated[str, typer.Option(help="Of the trunk, in our settings.")],
    host: Annotated[str, typer.Option(help="Where our calls go: NAME.pstn.twilio.com, an address.")] = "",
    address: Annotated[str, typer.Option(help="Ours, as the far side reaches it (default: the settings').")] = "",
    username: Annotated[str, typer.Option(help="What we log in with, if the far side wants it.")] = "",
    register: Annotated[bool, typer.Option("--register", help="As an extension or account of it.")] = False,
    peer: Annotated[list[str] | None, typer.Option(help="Where its calls come from. Repeatable.")] = None,
    region: Annotated[str, typer.Option(help="Of the carrier's.")] = "",
    number: Annotated[list[str] | None, typer.Option(help="Ours on this trunk. Repeatable.")] = None,
    caller_id: Annotated[str, typer.Option(help="Who calls, where an order names no other.")] = "",
    country: Country = "",
    secure: Annotated[bool, typer.Option("--secure", help="TLS and SRTP.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """A trunk from a template: the settings, and what is to be entered at the far side. Nothing is written."""
    from trunkline.numbers.carriers.templates import Answers, template

    sip = load(config).sip
    made = template(
        kind,
        Answers(
            name,
            host,
            address or sip.advertised_address or "",
            username,
            register,
            peer or (),
            region,
            number or (),
            caller_id,
            country.upper(),
            secure,
            sip.port,
            sip.tls_port,
        ),
    )
    if as_json:
        _print(made.as_json())
        return
    typer.echo(f"# trunkline.toml: {made.title}, by what was known on {made.as_of}\n{made.toml}")
    typer.echo(f"# the far side\n{made.far_side}")
    for note in made.notes:
        typer.echo(f"- {note}")


@app.command()
def check(
    numbers: Annotated[list[str] | None, typer.Argument(help="+COUNTRY NUMBER, several (default: none).")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Whether calls can come: the gateway, its public URL, each trunk, and each NUMBER with its carrier and agent.
    Exit status 1 when something is in the way."""
    from trunkline.agents import script
    from trunkline.agents.examples import example
    from trunkline.gateway.readiness import look
    from trunkline.numbers.readiness import worst

    settings, read = load(config), [_number(each) for each in numbers or ()]
    agent = script.load(settings.agent or example("clinic")).name

    async def work() -> Any:
        if settings.twilio.account_sid is None or not read:
            return await look(settings, read, None, agent)
        async with _account(settings) as account:
            return await look(settings, read, account, agent)

    checks = asyncio.run(work())
    if as_json:
        _print({"verdict": worst(checks), "checks": checks})
    else:
        for each in checks:
            typer.echo(f"{each.verdict:5}{each.what}: {each.detail}" + (f"; {each.remedy}" if each.remedy else ""))
    raise typer.Exit(1 if worst(checks) == "fail" else 0)


# --- what they share ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _account(settings: Settings) -> "AsyncGenerator[TwilioNumbers]":
    given = settings.twilio
    if given.account_sid is None:
        raise ConfigError("twilio.account_sid", "", "AC... of the Twilio account, and a login (docs/numbers.md)")
    from trunkline.gateway.twilio.numbers import TwilioNumbers
    from trunkline.gateway.twilio.rest import TwilioRest

    rest = TwilioRest(
        given.account_sid, given.login, SYSTEM_CLOCK, region=given.region, edge=given.edge, api_url=given.api_url
    )
    try:
        yield TwilioNumbers(rest)
    finally:
        await rest.close()


def _asked(config: Path | None, work: "Callable[[TwilioNumbers], Coroutine[Any, Any, T]]") -> T:
    settings = load(config)

    async def ask() -> T:
        async with _account(settings) as account:
            return await work(account)

    return asyncio.run(ask())


def _number(text: str) -> "Number":
    from trunkline.numbers import e164

    try:
        return e164.number(text)
    except e164.BadNumber as bad:
        raise ConfigError("NUMBER", text, bad.why) from bad


def _public(settings: Settings) -> str:
    if settings.http.public_url is None:
        raise ConfigError("http.public_url", "", "the https address that Twilio reaches us at, or --no-point")
    return settings.http.public_url


def _capabilities(given: list[str]) -> "frozenset[Any]":
    known = {"voice", "sms", "mms", "fax"}
    if bad := next((each for each in given if each not in known), None):
        raise ConfigError("--capability", bad, "voice, sms, mms or fax")
    return frozenset(given)


def _wrong(each: "Owned", origin: str | None) -> list[str]:
    from trunkline.numbers.carriers.owning import mispointed, pointing

    return mispointed(each, pointing(origin)) if origin else ["http.public_url is not set"]


def _shown(each: "Owned", origin: str | None) -> dict[str, Any]:
    return {**asdict(each), "wrong": _wrong(each, origin)}


def _confirm(question: str) -> None:
    if not typer.confirm(question):
        raise typer.Exit(1)


def _not_done(answer: "NotTaken | Unknown", what: str, as_json: bool) -> NoReturn:
    from trunkline.numbers.carriers.account import Unknown
    from trunkline.numbers.carriers.owning import Failed, failed

    if isinstance(answer, Unknown):
        _failed(Failed(f"{what}: Twilio did not answer ({answer.why})", "try again"), as_json)
    _failed(failed(answer, what), as_json)


def _failed(outcome: Any, as_json: bool) -> NoReturn:
    """A Failed or an Unclear."""
    if as_json:
        _print({"outcome": type(outcome).__name__.lower(), **asdict(outcome)})
    else:
        typer.echo(f"trunkline: {outcome.why}" + (f"; {outcome.remedy}" if outcome.remedy else ""), err=True)
    raise typer.Exit(1)


def _print(found: Any) -> None:
    typer.echo(json.dumps(found, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Decimal | date):
        return str(value)
    raise TypeError(type(value).__name__)
