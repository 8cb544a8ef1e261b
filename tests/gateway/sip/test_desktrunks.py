"""Trunks of desks: which are in force, and that they come, change and go with what admins write."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.gateway.sip.test_desk import CARRIER, Desk, run
from trunkline.errors import StoreError
from trunkline.gateway.sip.desktrunks import DeskTrunks, Row, in_force
from trunkline.gateway.sip.trunks import LOOPBACK, Trunk
from trunkline.settings import Sip
from trunkline.types import DEFAULT_TENANT, TenantId

OTHER = TenantId("other")
NONE = Sip()
ONE = Sip.model_validate({"trunks": {"office": {"peers": ["192.0.2.0/24"]}}})


def row(name: str, tenant: TenantId = DEFAULT_TENANT, **settings: Any) -> Row:
    secrets = {key: settings.pop(key, None) for key in ("password", "auth_password")}
    made_at = settings.pop("created_at", 0)
    return tenant, {
        "name": name,
        "created_at": made_at,
        "settings": {"peers": ["198.51.100.1"], **settings},
        **secrets,
    }


def test_desks_add_to_the_settings() -> None:
    trunks, out = in_force(
        ONE, "off", [row("telnyx", username="u", password="p"), row("far", OTHER, peers=["203.0.113.9"], created_at=1)]
    )
    assert [(trunk.name, trunk.tenant) for trunk in trunks] == [
        ("office", None),
        ("telnyx", DEFAULT_TENANT),
        ("other.far", OTHER),
    ]
    assert trunks[1].password == "p"
    assert out == {}


def test_loopback_is_there_while_there_is_no_other() -> None:
    assert [trunk.name for trunk in in_force(NONE, "off", [])[0]] == [LOOPBACK]
    assert [trunk.name for trunk in in_force(NONE, "off", [row("a")])[0]] == ["a"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (row("office"), "the settings have a trunk of this name"),
        (row("mine", peers=["192.0.2.7"]), "its peers are those of the trunk office of the settings, too"),
        (row("mine", OTHER, peers=["198.51.100.0/25"]), "its peers are those of the trunk a of default, too"),
        (row("mine", peers=[]), "peers: who calls us"),
        (row("mine", colour="red"), "colour: there is no such field"),
    ],
)
def test_one_that_cannot_be_in_force_says_why(given: Row, why: str) -> None:
    trunks, out = in_force(ONE, "off", [row("a"), given])
    assert [trunk.name for trunk in trunks] == ["office", "a"]
    assert [told.startswith(why) for told in out.values()] == [True], out


def test_a_tenants_own_trunks_may_share_peers() -> None:
    assert in_force(NONE, "off", [row("a"), row("b")])[1] == {}


def test_whoever_was_there_first_keeps_its_peers() -> None:
    zeta = row("main", TenantId("zeta"), created_at=1)
    acme = row("main", TenantId("acme"), created_at=2)
    trunks, out = in_force(NONE, "off", [acme, zeta])
    assert [trunk.name for trunk in trunks] == ["zeta.main"]
    assert list(out) == ["acme.main"]
    earlier = row("main", TenantId("acme"), created_at=0)
    assert [trunk.name for trunk in in_force(NONE, "off", [earlier, zeta], trunks)[0]] == [
        "zeta.main"
    ]  # it is in force


def test_a_tenant_has_neither_everybodys_addresses_nor_all_places() -> None:
    wide = row("all", OTHER, peers=["0.0.0.0/0"], username="u", password="p")
    assert in_force(NONE, "off", [wide])[1] == {"other.all": "peers: 0.0.0.0/0 is wider than a tenant may have (/16)"}
    many = [row(f"t{each:02}", OTHER, peers=[f"198.51.100.{each}"]) for each in range(51)]
    assert in_force(NONE, "off", many)[1] == {"other.t50": "its tenant has 50 trunks already"}


class Rows:
    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.revision, self.away = 0, False

    def now(self, *rows: Row) -> None:
        self.rows, self.revision = list(rows), self.revision + 1

    async def revisions(self) -> int:
        if self.away:
            raise StoreError("the database is away")
        return self.revision

    async def trunks(self) -> Sequence[Row]:
        return self.rows


class Brought:
    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.refuses: dict[str, str] = {}

    async def bring(self, wanted: Sequence[Trunk]) -> Mapping[str, str]:
        self.told.append([trunk.name for trunk in wanted])
        return self.refuses


def test_what_admins_write_is_brought_once_and_again_when_it_changes() -> None:
    async def scenario() -> None:
        rows, desk = Rows(), Brought()
        kept = DeskTrunks(rows, desk, ONE, "off")
        await kept.look()
        assert desk.told == []  # the settings' are there
        rows.now(row("a"))
        await kept.look()
        await kept.look()
        rows.now(row("a"))  # something else of the desk
        await kept.look()
        assert desk.told == [["office", "a"]]
        rows.away = True
        rows.now()
        await kept.look()
        assert desk.told == [["office", "a"]]
        rows.away = False
        await kept.look()
        assert desk.told[-1] == ["office"]

    asyncio.run(scenario())


def test_one_that_the_stack_does_not_take_is_told_of() -> None:
    async def scenario() -> None:
        rows, desk = Rows(), Brought()
        desk.refuses = {"a": "no such name"}
        kept = DeskTrunks(rows, desk, ONE, "off")
        rows.now(row("a"))
        await kept.look()
        assert kept.not_in_force == {"a": "no such name"}
        rows.now()
        desk.refuses = {}
        await kept.look()
        assert kept.not_in_force == {}

    asyncio.run(scenario())


def test_the_desk_takes_new_trunks_and_forgets_old_ones() -> None:
    fresh = replace(CARRIER, name="fresh", host="fresh.example.com", registers=True)

    async def scenario(here: Desk) -> None:
        await here.desk.bring([fresh])
        assert [view.name for view in here.desk.trunks()] == ["fresh"]
        assert ("register", "fresh", True) in here.stack.told
        assert here.not_dialled(trunk="carrier") == "no_trunk"
        await here.desk.bring([replace(fresh, host="elsewhere.example.com")])
        assert here.stack.told[-2:] == [("forget", "fresh"), ("register", "fresh", True)]
        here.stack.refuses = {"fresh": "no"}
        assert await here.desk.bring([fresh]) == {"fresh": "no"}
        assert here.desk.trunks() == []

    run(scenario)
