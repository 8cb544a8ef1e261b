"""Every page of the desk: for each role, for nobody, with hostile text, without anything inline; and that forms say
what they mean."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from tests.gateway.console.house import CSRF, HOSTILE, ONE, TWO, Audit, Fields, House
from trunkline.gateway.console.pages import POLICY
from trunkline.identity import Role

SCRIPT = (Path(__file__).parents[3] / "trunkline" / "agents" / "examples" / "clinic.toml").read_text(encoding="utf-8")
SEEN = (
    "numbers",
    "numbers?search=x&route=main&tag=a",
    f"numbers/{ONE}",
    "numbers/_who",
    "routes",
    "routes/main",
    "hours",
    "hours/office",
    "trunks",
    "trunks/office",
    "carriers",
    "carriers/tw",
    "budgets",
    "budgets/day",
    "agents",
    "agents/desk",
    "agents/desk/_version/1",
    "tenant",
    "changes",
    "code",
)
MADE = (
    "numbers/_new",
    "numbers/_import",
    "routes/_new",
    "hours/_new",
    "trunks/_new",
    "trunks/_template",
    "carriers/_new",
    "budgets/_new",
    "agents/_new",
    "start",
    "start?step=1",
    "start?step=3",
    "start?step=4",
)
KEPT = (f"numbers/{ONE}", "routes/main", "hours/office", "trunks/office", "carriers/tw", "budgets/day", "agents/desk")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    with found.client:
        yield found


@pytest.fixture
def full(house: House) -> House:
    desk = house.desk
    house.make("agents", name="desk", label=HOSTILE, draft=SCRIPT)
    assert house.client.portal is not None
    house.client.portal.call(desk.publish, house.tenant, "user:ann", "desk", HOSTILE)
    week = {"mon": ["09:00-12:00", "13:00-17:00"]}
    holidays = [{"date": "2026-12-25", "name": HOSTILE}]
    house.make("hours", name="office", zone="America/New_York", weekly=week, holidays=holidays)
    answer = {"kind": "agents", "agents": [{"agent": "desk"}, {"agent": "desk", "version": 1, "weight": 5}]}
    said = {"kind": "message", "text": HOSTILE}
    rules = [{"name": "vip", "callers": ["+1415*"], "verdicts": ["verified"], "answer": said}]
    fields = {"matches": ["+1416*"], "queue": {"say_position": False}, "closed": said, "label": HOSTILE}
    house.make("routes", name="main", hours="office", answer=answer, rules=rules, **fields)
    house.make("carriers", name="tw", type="twilio", label=HOSTILE, auth_token="hush-hush")
    settings = {"host": "sip.example.com", "peers": ["203.0.113.7/32"]}
    house.make("trunks", name="office", label=HOSTILE, carrier="tw", settings=settings)
    agents = [{"agent": "desk", "version": 1}]
    house.make("numbers", number=ONE, label=HOSTILE, route="main", tags=["a", "b"], agents=agents, carrier="tw")
    house.make("budgets", name="day", label=HOSTILE, scope="number", number=ONE, per="day", usd="5")
    return house


# --- looking ---


@pytest.mark.parametrize("role", get_args(Role))
def test_each_page_is_for_each_role_and_sound(full: House, role: Role) -> None:
    full.role = role
    for path in SEEN:
        answer = full.client.get(f"/console/{path}")
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"] == POLICY
        assert Audit(answer.text).wrong == [], path
        assert "<script>alert" not in answer.text, path
        assert "hush-hush" not in answer.text


@pytest.mark.parametrize("path", MADE)
def test_pages_that_make_something_are_for_admins(house: House, path: str) -> None:
    assert Audit(house.see(path)).wrong == []
    house.role = "supervisor"
    assert "Admins may change this" in house.see(path, 403)


@pytest.mark.parametrize("role", ["viewer", "supervisor"])
def test_who_may_not_change_sees_no_way_to_and_is_refused(full: House, role: Role) -> None:
    full.role = role
    for path in KEPT:
        html = full.see(path)
        assert '<fieldset class="plain" disabled>' in html
        assert "Delete" not in html.split("<main", 1)[1]
        for action in ("", "/_delete"):
            full.send(f"{path}{action}", {"label": "x"}, 403)
    for path in ("tenant", "tenant/_outage", "code", "numbers/_import", "start/number", "agents/desk/_publish"):
        full.send(path, {"on": "true", "sure": "true"}, 403)
    assert full.kept("tenant", "tenant") is None


def test_nobody_is_led_to_the_sign_in(full: House) -> None:
    full.role = None
    for path in (*SEEN, *MADE):
        answer = full.client.get(f"/console/{path}")
        assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/console/sign-in")
        assert answer.text == ""
    assert full.client.post("/console/numbers/_new", data={"number": TWO}).status_code == 303
    assert full.kept("numbers", TWO) is None


def test_a_form_of_no_session_changes_nothing(house: House) -> None:
    for fields in ({}, {"csrf_token": ""}, {"csrf_token": "another"}):
        refused = house.client.post("/console/numbers/_new", data={"number": ONE, **fields})
        assert refused.status_code == 403
    house.csrf = ""
    assert house.client.post("/console/numbers/_new", data={"number": ONE, "csrf_token": ""}).status_code == 403
    house.csrf = CSRF
    assert house.kept("numbers", ONE) is None
    taken = house.client.post("/console/numbers/_new", data={"number": ONE}, headers={"x-csrf-token": CSRF})
    assert taken.status_code == 303


def test_another_tenant_finds_nothing(full: House) -> None:
    full.tenant = type(full.tenant)("theirs")
    for path in (*KEPT, "agents/desk/_version/1"):
        full.see(path, 404)
        full.send(path, {"label": "theirs"}, 404 if "_version" not in path else 405)
    assert ONE not in full.see("numbers") + full.see("changes") + full.see("code")


# --- forms ---


@pytest.mark.parametrize("path", [*KEPT[:6], "agents/desk"])
def test_a_form_that_is_sent_as_it_came_changes_nothing(full: House, path: str) -> None:
    kind, _, key = path.partition("/")
    before = full.kept(kind, key)
    action = f"/console/{path.replace('+', '%2B')}"
    sent = Fields(full.see(path), action).sent
    answer = full.send(path, sent)
    assert answer.headers["location"].endswith("?said=same")
    assert full.kept(kind, key) == before


def test_a_number_is_made_changed_and_deleted(house: House) -> None:
    made = house.send("numbers/_new", {"number": ONE, "label": "Front", "tags": "a b", "enabled": "true"})
    assert made.headers["location"] == "/console/numbers/%2B14155550100?said=made"
    kept = house.kept("numbers", ONE)
    assert (kept.body["tags"], kept.body["enabled"]) == (["a", "b"], True)
    house.send(f"numbers/{ONE}", {"label": "Back", "enabled": "false", "at_version": "1"})
    after = house.kept("numbers", ONE)
    assert (after.body["label"], after.body["enabled"], after.body["tags"]) == ("Back", False, [])
    house.send(f"numbers/{ONE}/_delete", {"at_version": "2"})
    assert house.kept("numbers", ONE) is None


def test_wrong_fields_are_told_where_they_are_and_what_was_typed_stays(house: House) -> None:
    refused = house.send("numbers/_new", {"number": "123", "label": HOSTILE, "max_calls": "many"}, 422).text
    assert Audit(refused).wrong == []
    assert 'value="123"' in refused
    assert "alert(1)" in refused
    assert "<script>alert" not in refused
    field = refused.split('id="f-number"')[1].split(">")[0]
    assert 'aria-invalid="true"' in field
    assert "f-number-wrong" in field
    assert "autofocus" in field
    taken = house.send("numbers/_new", {"number": ONE})
    assert taken.status_code == 303
    assert "is there already" in house.send("numbers/_new", {"number": ONE}, 409).text


def test_a_change_of_what_somebody_changed_is_412_with_both(full: House) -> None:
    path = f"numbers/{ONE}"
    sent = Fields(full.see(path), "/console/numbers/%2B14155550100").sent
    full.send(path, {**sent, "label": "theirs"})
    refused = full.send(path, {**sent, "label": "mine"}, 412).text
    assert "Somebody changed this" in refused
    assert "theirs" in refused
    assert 'value="mine"' in refused
    assert Audit(refused).wrong == []
    again = Fields(refused, "/console/numbers/%2B14155550100").sent
    full.send(path, again)
    assert full.kept("numbers", ONE).body["label"] == "mine"


def test_what_is_in_use_is_not_deleted_and_says_by_what(full: House) -> None:
    page = full.see("routes/main")
    assert f"number {ONE}" in page
    assert "Delete main" not in page
    refused = full.send("routes/main/_delete", {"at_version": "1"}, 409).text
    assert "in use by" in refused
    assert full.kept("routes", "main") is not None


def test_rows_of_a_form_come_and_go_by_posts(house: House) -> None:
    typed = {"name": "main", "answer.kind": "message", "answer.text": "Hello", "do": "add:rules"}
    with_row = house.send("routes/_new", typed, 200).text
    assert 'name="rules.0.name"' in with_row
    assert "autofocus" in with_row.split('id="f-rules-0-name"')[1].split(">")[0]
    sent = Fields(with_row, "/console/routes/_new").sent
    assert (sent["name"], sent["answer.text"]) == ("main", "Hello")
    without = house.send("routes/_new", {**sent, "do": "remove:rules.0"}, 200).text
    assert 'name="rules.0.name"' not in without
    more = {**sent, "rules.0.name": "vip", "rules.0.callers": "+1415*", "rules.0.answer.kind": "busy", "do": "save"}
    house.send("routes/_new", more)
    assert house.kept("routes", "main").body["rules"][0]["answer"] == {"kind": "busy"}
    no_agent = house.send("routes/_new", {"name": "two", "answer.kind": "agents"}, 422).text
    assert "at least 1" in no_agent


def test_secrets_are_written_and_never_read(full: House) -> None:
    sent = Fields(full.see("carriers/tw"), "/console/carriers/tw").sent
    assert sent["auth_token"] == ""
    full.send("carriers/tw", {**sent, "label": "Twilio"})
    assert full.kept("carriers", "tw").secrets == {"auth_token"}
    full.send("carriers/tw", {**sent, "auth_token": "hush-two", "at_version": "2"})
    assert "hush" not in full.see("carriers/tw") + full.see("changes") + full.see("code/_export")


def test_a_trunk_is_written_as_toml(house: House) -> None:
    wrong = house.send("trunks/_new", {"name": "office", "settings": "host = "}, 422).text
    assert "docs/settings.md" in wrong
    text = 'host = "sip.example.com"\npeers = ["203.0.113.7/32"]'
    house.send("trunks/_new", {"name": "office", "settings": text, "enabled": "true"})
    assert house.kept("trunks", "office").body["settings"]["peers"] == ["203.0.113.7/32"]


def test_a_trunk_comes_from_a_template(house: House) -> None:
    typed = {"kind": "twilio", "name": "office", "host": "", "do": "show"}
    missing = house.send("trunks/_template", typed, 422).text
    assert 'aria-invalid="true"' in missing.split('id="f-host"')[1].split(">")[0]
    typed |= {"host": "acme.pstn.twilio.com", "public_address": "203.0.113.10"}
    shown = house.send("trunks/_template", typed, 200).text
    assert "Termination SIP URI acme.pstn.twilio.com" in shown
    house.send("trunks/_template", {**typed, "do": "make"})
    assert house.kept("trunks", "office").body["settings"]["host"] == "acme.pstn.twilio.com"


def test_opening_hours_say_whether_it_is_open_and_until_when(house: House) -> None:
    every_day = {f"weekly.{day}": "0-24" for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")}
    house.send("hours/_new", {"name": "always", "zone": "UTC", **every_day})
    assert "Open now" in house.see("hours/always")
    assert "No change within a year" in house.see("hours/always")
    house.send("hours/_new", {"name": "never", "zone": "UTC"})
    assert "Closed now" in house.see("hours/never")


# --- all of it ---


def test_the_switch_asks_twice_on_and_once_off(house: House) -> None:
    unsure = house.send("tenant/_outage", {"on": "true"}, 422).text
    assert "Tick this first" in unsure
    assert house.kept("tenant", "tenant") is None
    house.send("tenant/_outage", {"on": "true", "sure": "true"})
    assert house.kept("tenant", "tenant").body["outage"] is True
    assert "The switch is on" in house.see("tenant")
    sent = Fields(house.see("tenant"), "/console/tenant").sent
    house.send("tenant", {**sent, "countries": "us ca"})
    kept = house.kept("tenant", "tenant")
    assert (kept.body["outage"], kept.body["countries"]) == (True, ["US", "CA"])
    assert "Somebody changed this" in house.send("tenant", {**sent, "countries": ""}, 412).text
    house.send("tenant/_outage", {"on": "false"})
    assert house.kept("tenant", "tenant").body["outage"] is False


def test_a_file_is_shown_before_it_is_applied(full: House) -> None:
    text = full.client.get("/console/code/_export").text
    same = full.send("code", {"text": text, "do": "show"}, 200).text
    assert "all is as in the file" in same
    text = f'numbers = [{{ number = "{TWO}", label = "Two" }}]'
    shown = full.send("code", {"text": text, "do": "show"}, 200).text
    assert (Audit(shown).wrong, TWO in shown, full.kept("numbers", TWO)) == ([], True, None)
    full.send("code", {"text": text, "do": "apply"})
    assert full.kept("numbers", TWO).body["label"] == "Two"
    wrong = full.send("code", {"text": text.replace("Two", "x").replace("label", "colour"), "do": "apply"}, 422).text
    assert "Nothing was changed" in wrong
    assert "numbers.0" in wrong


def test_a_csv_is_looked_at_by_line_then_brought_whole(full: House) -> None:
    csv = f"number,label,route\n{TWO},Two,main\n+1415,Bad,main\n+14155550103,Three,nowhere\n"
    shown = full.send("numbers/_import", {"text": csv, "do": "bring"}, 422).text
    assert Audit(shown).wrong == []
    assert "Nothing is imported yet" in shown
    assert full.kept("numbers", TWO) is None
    full.send("numbers/_import", {"text": csv, "do": "bring_good"})
    assert full.kept("numbers", TWO).body["route"] == "main"
    assert full.kept("numbers", "+14155550103") is None
    files = {"file": ("numbers.csv", b"\xef\xbb\xbfnumber;label\r\n+14155550104;Four\r\n", "text/csv")}
    answer = full.client.post("/console/numbers/_import", data={"csrf_token": CSRF, "do": "bring"}, files=files)
    assert answer.status_code == 303
    assert full.kept("numbers", "+14155550104").body["label"] == "Four"


def test_changes_say_who_and_what(full: House) -> None:
    full.send(f"numbers/{ONE}", {"label": "new label", "at_version": "1"})
    page = full.see(f"changes?kind=numbers&key=%2B{ONE[1:]}")
    assert "<strong>ann</strong> changed" in page
    assert "new label" in page
    assert Audit(page).wrong == []
    assert full.client.get("/console/changes?cursor=x!").status_code == 400


def test_a_database_that_is_away_is_said(house: House) -> None:
    assert house.client.portal is not None
    house.client.portal.call(house.database.close)
    (house.folder / "trunkline.db").unlink()
    house.see("numbers", 503)
