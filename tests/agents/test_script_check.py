"""A file an admin writes: what is right is read, and every mistake is explained by its line."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.agents.definition import ContextTerms, Failover, HandOff, ProviderChoice, RealtimeTerms, TransferTerms
from trunkline.agents.examples import example
from trunkline.agents.script import Problem, check, check_text, load, load_family
from trunkline.agents.script.check import MAX_FILE_BYTES, read_text
from trunkline.agents.script.hours import Hours, read_spans, say, time_zone
from trunkline.agents.script.lines import places
from trunkline.agents.script.template import fill, variables
from trunkline.agents.script.words import say_digits, spell, spoken_digits, words
from trunkline.errors import ConfigError

HEAD = 'name = "A"\ngreeting = "Hi."\nstt.provider = "standin"\ntts.provider = "standin"\n'
INTENT = '[[intents]]\nname = "a"\nphrases = ["go"]\nreply = "Well."\n'
DESK = '[targets.desk]\naddress = "+12025550123"\n'


def problems_of(text: str) -> list[tuple[int, str, str]]:
    """Line, key and severity, of the text after HEAD (whose lines do not count)."""
    offset = HEAD.count("\n")
    return [(p.line - offset, p.key, p.severity) for p in check_text(HEAD + text)]


def only_problem(text: str) -> Problem:
    found = check_text(HEAD + text)
    assert len(found) == 1, found
    return found[0]


def test_the_clinic_is_without_a_problem() -> None:
    assert [problem for problem in check(example("clinic")) if problem.key != "stt.provider"] == []


def test_the_clinic_is_read_as_it_is_written() -> None:
    definition = load(example("clinic"))
    assert definition.name == "Elm Street Clinic"
    assert (definition.stt.provider, definition.llm.provider, definition.tts.provider) == (
        "pocketsphinx",
        "script",
        "espeak",
    )
    assert definition.targets == {"reception": "+12025550123"}
    assert len(definition.no_input) == 2


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", None),
        ('[turn_detector]\nprovider = "none"\n', ProviderChoice("none")),
        ('[turn_detector]\nprovider = "rules"\n', ProviderChoice("rules")),
        (
            '[turn_detector]\nprovider = "remote"\ntargets = ["127.0.0.1:1"]\n',
            ProviderChoice("remote", {"targets": ["127.0.0.1:1"]}),
        ),
    ],
)
def test_a_turn_detector_is_read(text: str, read: ProviderChoice | None) -> None:
    definition, problems = read_text(HEAD + INTENT + text)
    assert problems == []
    assert definition is not None
    assert definition.turn_detector == read


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('provider = "oracle"\n', "turn_detector.provider"),
        ('provider = "none"\nthreshold = 1\n', "turn_detector.threshold"),
        ('provider = "rules"\nthreshold = 1\n', "turn_detector.threshold"),
        ('provider = "remote"\ntarget = ["127.0.0.1:1"]\n', "turn_detector.target"),
    ],
)
def test_a_wrong_turn_detector_is_named(text: str, key: str) -> None:
    assert only_problem(INTENT + "[turn_detector]\n" + text).key == key


def test_a_realtime_model_is_read_with_its_own_options_apart() -> None:
    definition, problems = read_text(
        HEAD + '[realtime]\nprovider = "openai"\nturns = "server"\nsession_minutes = 30\nmodel = "m"\nvoice = "cedar"\n'
    )
    assert problems == []
    assert definition is not None
    assert definition.realtime == RealtimeTerms(
        ProviderChoice("openai", {"model": "m", "voice": "cedar"}), turns="server", session_minutes=30
    )
    without, _ = read_text(HEAD + INTENT)
    assert without is not None
    assert without.realtime is None


def test_a_target_may_be_a_table_and_one_without_is_as_it_was() -> None:
    more = 'fallback = "nurse"\nkind = "warm"\nring_seconds = 20\n[targets.nurse]\naddress = "+12025550124"\n'
    definition, problems = read_text(HEAD + INTENT + DESK + more + 'summary = "A caller."\nfallback = "porter"\n')
    assert [p.key for p in problems] == ["targets.nurse.fallback"]
    definition, problems = read_text(HEAD + INTENT + DESK + more + 'summary = "A caller."\n')
    assert problems == []
    assert definition is not None
    assert definition.targets == {"desk": "+12025550123", "nurse": "+12025550124"}
    assert definition.terms_of("desk") == TransferTerms(kind="warm", ring_s=20, fallback="nurse")
    assert definition.terms_of("nurse") == TransferTerms(summary="A caller.")
    assert definition.terms_of("reception") == TransferTerms()
    assert definition.chain("desk") == ("desk", "nurse")


def test_fallbacks_that_run_in_a_circle_are_found_where_they_stand() -> None:
    two = '[targets.desk]\naddress = "+12025550123"\nfallback = "nurse"\n'
    two += '[targets.nurse]\naddress = "+12025550124"\nfallback = "desk"\n'
    found = check_text(HEAD + INTENT + two)
    assert [(p.key, p.message) for p in found] == [
        ("targets.desk.fallback", "leads back to itself: desk -> nurse -> desk"),
        ("targets.nurse.fallback", "leads back to itself: nurse -> desk -> nurse"),
    ]


def test_what_is_not_written_has_the_definitions_default() -> None:
    definition, problems = read_text('name = "A"\ngreeting = "Hi."\n' + INTENT)
    assert not [problem for problem in problems if problem.severity == "error"]
    assert definition is not None
    assert definition.llm.provider == "script"
    assert definition.turns.no_input_ms == 7000
    assert definition.goodbye == "Thank you for calling. Goodbye."


BARE = 'name = "A"\ngreeting = "Hi."\n'
RANKED = """
[[llm]]
provider = "openai"
model = "large"

[[llm]]
provider = "openai"
{model}

[[tts]]
provider = "espeak"

[failover]
first_word_ms = 900
last_resort = "transfer"
target = "{target}"

[targets]
desk = "+12025550123"
"""


def test_a_provider_may_be_followed_by_others_in_the_order_of_the_file() -> None:
    definition, problems = read_text(BARE + RANKED.format(model='model = "small"', target="desk") + INTENT)
    assert not problems
    assert definition is not None
    assert [choice.options["model"] for choice in definition.choices("llm")] == ["large", "small"]
    assert [choice.provider for choice in definition.choices("tts")] == ["espeak"]
    assert definition.choices("stt") == (ProviderChoice("pocketsphinx"),)
    assert definition.failover == Failover(first_word_ms=900, last_resort="transfer", target="desk")


WAY_OUT = """
[targets]
desk = "+12025550123"

[variables]
who = "the desk"

[fallback]
reply = ["Sorry. You will speak to {who}.", "Sorry again."]
transfer = "desk"
"""


@pytest.mark.parametrize("wish", ["", '[failover]\nlast_resort = "transfer"\n'])
def test_who_cannot_be_answered_goes_where_who_is_not_understood_goes(wish: str) -> None:
    definition, problems = read_text(BARE + wish + WAY_OUT + INTENT)
    assert not problems
    assert definition is not None
    assert definition.failover == Failover(
        last_resort="transfer", target="desk", words="Sorry. You will speak to the desk."
    )


@pytest.mark.parametrize(
    ("wish", "terms"),
    [
        ('last_resort = "hang_up"', Failover()),
        ('last_resort = "message"', Failover(last_resort="message")),
        ('last_resort = "transfer"\ntarget = "desk"', Failover(last_resort="transfer", target="desk")),
    ],
)
def test_a_last_resort_that_is_named_is_the_one(wish: str, terms: Failover) -> None:
    definition, problems = read_text(BARE + f"[failover]\n{wish}\n" + WAY_OUT + INTENT)
    assert not problems
    assert definition is not None
    assert definition.failover == terms


def test_a_mistake_in_one_of_several_is_found_where_it_stands() -> None:
    text = BARE + RANKED.format(model='modell = "small"', target="dask") + INTENT
    found = check_text(text)
    lines = text.splitlines()
    assert [(p.key, lines[p.line - 1]) for p in found] == [
        ("llm[2].modell", 'modell = "small"'),
        ("failover.target", 'target = "dask"'),
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('llm = ["openai"]', "llm"),
        ("llm = []", "llm"),
        ('[[tts]]\nprovider = "espeak"\n' * 6, "tts"),
        ('[[tts]]\nprovider = "espeek"\n', "tts[1].provider"),
        ('[failover]\nlast_resort = "transfer"', "failover"),
        ('[failover]\nlast_resort = "pray"', "failover.last_resort"),
    ],
)
def test_what_is_no_list_of_providers_is_refused(text: str, key: str) -> None:
    assert key in [problem.key for problem in check_text(BARE + text + "\n" + INTENT)]


def test_an_example_of_everything_has_no_problem() -> None:
    text = """
language = "en-GB"
greeting_interruptible = false
goodbye = "Bye."
no_input = ["Hello?"]

[llm]
provider = "script"

[turns]
no_input_ms = 5000

[targets]
desk = "+44 20 7946 0000"

[variables]
floor = 2

[hours]
time_zone = "Europe/London"
monday = "08:00-12:00, 13:00-17:30"
sunday = "closed"
closed_days = [2026-12-25, "2027-01-01"]

[slots.doctor]
prompt = "Which doctor?"
[slots.doctor.values]
"Dr. Lee" = ["lee", "[doctor] susan lee"]
"Dr. Ray" = []

[slots.day]
values = ["Monday", "Friday"]

[digits.patient]
prompt = "Your number?"
min = 3
max = 6
pattern = "[1-9][0-9]*"
spoken = true

[tools.book]
type = "http"
method = "POST"
url = "https://x.example/{patient}?doctor={doctor}"
headers = { Authorization = "Bearer {key:x}" }
body = { day = "{day}" }
result = { time = "appointment.time" }

[tools.gate]
type = "send_dtmf"
digits = "9"

[[intents]]
name = "book"
key = "1"
phrases = ["book [an appointment] with {doctor} on {day}"]
ask = ["doctor", "patient"]
confirm = "Shall I book {doctor}?"
tool = "book"
reply = ["{doctor} at {time}, floor {floor}. Today is {today}.", "At {time}."]

[[intents]]
name = "person"
anywhere = true
phrases = ["(speak | talk) to a person"]
reply = "One moment."
reply_closed = "We open {next_opening}."
transfer = "desk"

[[intents]]
name = "open"
phrases = ["open the gate"]
reply = "Opening."
tool = "gate"

[fallback]
not_understood = ["What?"]
transfer = "desk"

[words]
yes = ["yes", "aye"]
"""
    found = check_text(HEAD + text)
    assert [(p.key, p.severity) for p in found] == [("tools.book.body.day", "warning")] or found == []


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (INTENT + 'replay = "x"', 5, "intents[1].replay"),
        ("greetin = 1\n" + INTENT, 1, "greetin"),
        (INTENT + '[[intents]]\nname = "b"\nphrases = [\n  "one",\n  2,\n]\nreply = "x"', 9, "intents[2].phrases[2]"),
        (INTENT + '[[intents]]\nname = "b"\nphrases = ["x"]\nreply = true', 8, "intents[2].reply"),
        (INTENT + '[[intents]]\nphrases = ["x"]\nreply = "x"', 5, "intents[2]"),
        (INTENT + '[[intents]]\nname = "a"\nphrases = ["x"]\nreply = "x"', 6, "intents[2].name"),
        (INTENT + '[[intents]]\nname = "B"\nphrases = ["x"]\nreply = "x"', 6, "intents[2].name"),
        (INTENT + '[[intents]]\nname = "repeat"\nphrases = ["x"]\nreply = "x"', 6, "intents[2].name"),
        (INTENT + '[[intents]]\nname = "b"\nphrases = ["(x"]\nreply = "x"', 7, "intents[2].phrases[1]"),
        (INTENT + '[[intents]]\nname = "b"\nphrases = ["[x]"]\nreply = "x"', 7, "intents[2].phrases[1]"),
        (INTENT + '[[intents]]\nname = "b"\nphrases = ["{dya}"]\nreply = "x"', 7, "intents[2].phrases[1]"),
        (INTENT + '[[intents]]\nname = "b"\nphrases = ["x"]', 5, "intents[2]"),
        (INTENT + '[[intents]]\nname = "b"\nreply = "x"', 5, "intents[2]"),
        (INTENT + '[[intents]]\nname = "b"\nkey = "12"\nphrases = ["x"]\nreply = "x"', 7, "intents[2].key"),
        (INTENT + '[[intents]]\nname = "b"\nphrases = ["x"]\nreply = "{y}"', 8, "intents[2].reply"),
        (INTENT + '[[intents]]\nname = "b"\nphrases = ["x"]\nreply = "{y.z}"', 8, "intents[2].reply"),
        (INTENT + '[[intents]]\nname = "b"\nphrases = ["x"]\nreply = "{"', 8, "intents[2].reply"),
        (INTENT + '[[intents]]\nname = "b"\nphrases = ["x"]\nreply = "{today}"', 8, "intents[2].reply"),
        (INTENT + 'transfer = "desk"', 5, "intents[1].transfer"),
        (INTENT + 'tool = "hangup"', 5, "intents[1].tool"),
        (INTENT + 'ask = ["code"]', 5, "intents[1].ask[1]"),
        (INTENT + '[targets]\ndesk = "2025550123"', 6, "targets.desk"),
        (INTENT + '[targets]\ndesk = "+1202"', 6, "targets.desk"),
        (INTENT + "[targets]\ndesk = 12025550123", 6, "targets.desk"),
        (INTENT + '[targets.desk]\nkind = "warm"', 5, "targets.desk"),
        (INTENT + DESK + 'kind = "wam"', 7, "targets.desk.kind"),
        (INTENT + DESK + "ring_seconds = 3", 7, "targets.desk.ring_seconds"),
        (INTENT + DESK + 'detect_voicemail = "no"', 7, "targets.desk.detect_voicemail"),
        (INTENT + DESK + 'fallback = "nurse"', 7, "targets.desk.fallback"),
        (INTENT + DESK + 'fallback = "desk"', 7, "targets.desk.fallback"),
        (INTENT + DESK + 'after = "resume"', 7, "targets.desk.after"),
        (INTENT + '[targets.desk]\naddress = "2025550123"', 6, "targets.desk.address"),
        (INTENT + "[turns]\nno_input_ms = 5", 6, "turns.no_input_ms"),
        (INTENT + "[turns]\nendpointing_ms = 5000", 5, "turns"),
        (INTENT + '[hours]\nmonday = "8-17"\ntime_zone = "Europe/Paris"', 6, "hours.monday"),
        (INTENT + '[hours]\ntime_zone = "Paris"', 6, "hours.time_zone"),
        (INTENT + '[hours]\ntime_zone = "Europe/Paris"\nclosed_days = ["xmas"]', 7, "hours.closed_days[1]"),
        (INTENT + "[slots.day]\nvalues = []", 6, "slots.day.values"),
        (INTENT + '[slots.day]\nvalues = ["(a"]', 6, "slots.day.values[1]"),
        (INTENT + '[digits.code]\nprompt = "?"\nmin = 5\nmax = 4', 7, "digits.code.min"),
        (INTENT + '[digits.code]\nprompt = "?"\npattern = "([0-9]+)+"', 7, "digits.code.pattern"),
        (INTENT + '[digits.code]\nprompt = "?"\npattern = "["', 7, "digits.code.pattern"),
        (INTENT + '[tools.x]\ntype = "https"', 6, "tools.x.type"),
        (INTENT + '[tools.x]\ntype = "http"', 5, "tools.x"),
        (INTENT + '[tools.x]\ntype = "http"\nurl = "https://{a}.example/"', 7, "tools.x.url"),
        (INTENT + '[tools.x]\ntype = "http"\nurl = "file:///etc/passwd"', 7, "tools.x.url"),
        (INTENT + '[tools.x]\ntype = "http"\nurl = "https://x.example/"\nbody = { a = "b" }', 8, "tools.x.body"),
        (
            INTENT + '[tools.x]\ntype = "http"\nurl = "https://x.example/"\nheaders = { Host = "b" }',
            8,
            "tools.x.headers.Host",
        ),
        (INTENT + '[tools.x]\ntype = "transfer"\ntarget = "desk"', 7, "tools.x.target"),
        (INTENT + '[tools.x]\ntype = "send_dtmf"\ndigits = "abc"', 7, "tools.x.digits"),
        (INTENT + '[tools.hang_up]\ntype = "hang_up"', 5, "tools.hang_up"),
        (INTENT + '[tools.x]\ntype = "hang_up"\nurl = "https://x.example/"', 7, "tools.x.url"),
        (INTENT + '[llm]\nprovider = "scrpt"', 6, "llm.provider"),
        (INTENT + '[llm]\nprovider = "openai"\nmodel = "m"\nbase_ulr = "x"', 8, "llm.base_ulr"),
        (INTENT + '[llm]\nmodel = "m"', 5, "llm"),
        (INTENT + '[realtime]\nmodel = "m"', 5, "realtime"),
        (INTENT + '[realtime]\nprovider = "opnai"', 6, "realtime.provider"),
        (INTENT + '[realtime]\nprovider = "openai"\nmodel = "m"\nturns = "nobody"', 8, "realtime.turns"),
        (INTENT + '[realtime]\nprovider = "openai"\nmodel = "m"\nvoise = "x"', 8, "realtime.voise"),
        ('intents = "x"', 1, "intents"),
        (INTENT + '[words]\nyes = ["(yes"]', 6, "words.yes[1]"),
    ],
)
def test_a_mistake_is_found_on_its_line(text: str, line: int, key: str) -> None:
    found = problems_of(text)
    assert (line, key, "error") in found, found


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (INTENT + 'replay = "x"', "did you mean reply?"),
        (
            INTENT + '[[intents]]\nname = "b"\nphrases = ["{dya}"]\nreply = "x"\n[slots.day]\nvalues = ["x"]',
            "mean day?",
        ),
        (INTENT + 'transfer = "recption"\n[targets]\nreception = "+12025550123"', "did you mean reception?"),
        (INTENT + '[llm]\nprovider = "scrpt"', "did you mean script?"),
        (INTENT + '[tools.x]\ntype = "tranfser"', "did you mean transfer?"),
    ],
)
def test_a_slip_of_the_pen_has_a_suggestion(text: str, hint: str) -> None:
    assert any(hint in problem.message for problem in check_text(HEAD + text))


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ('name = "A', 1, "closing quote"),
        ("name = yes", 1, "a text stands in quotes"),
        ('name = "A"\nname = "B"', 2, "twice"),
        ("name", 1, "not valid TOML"),
        ('a = ["x",', 1, "not valid TOML"),
        ('name = "A"\n\n[[intents]\n', 3, "not valid TOML"),
    ],
)
def test_what_is_no_toml_is_explained_by_line_too(text: str, line: int, hint: str) -> None:
    problem = check_text(text)[0]
    assert problem.line == line
    assert hint in problem.message
    assert problem.severity == "error"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (INTENT + 'reply_closed = "x"', "intents[1].reply_closed"),
        (INTENT + '[[intents]]\nname = "b"\nphrases = ["[please] go"]\nreply = "x"', "intents[2].phrases[1]"),
        (INTENT + '[targets]\nx = "+15550100"', "targets.x"),
        (INTENT + '[tools.x]\ntype = "http"\nurl = "http://x.example/"', "tools.x.url"),
        (
            '[slots.day]\nvalues = ["x"]\n[[intents]]\nname = "b"\nphrases = ["go [{day}]"]\nreply = "{day}"',
            "intents[1].reply",
        ),
    ],
)
def test_what_is_merely_doubtful_is_a_warning(text: str, key: str) -> None:
    problem = only_problem(text)
    assert (problem.key, problem.severity) == (key, "warning")


def test_a_word_the_recogniser_has_never_heard_is_an_error_where_it_stands() -> None:
    pytest.importorskip("pocketsphinx")
    found = check_text('name = "A"\ngreeting = "Hi."\n' + INTENT.replace('"go"', '"go to xyzzyplugh"'))
    errors = [problem for problem in found if problem.severity == "error"]
    assert [(p.line, p.key) for p in errors] == [(5, "intents[1].phrases[1]")]
    assert "'xyzzyplugh'" in errors[0].message


def test_all_mistakes_are_found_at_once_in_the_files_order() -> None:
    found = check_text('nam = "A"\n' + INTENT + "x = 1\n[turns]\nno_input_ms = 1\n")
    assert [p.line for p in found] == sorted(p.line for p in found)
    assert len([p for p in found if p.severity == "error"]) == 5


def test_load_refuses_a_file_with_an_error_and_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "desk.toml"
    file.write_text(HEAD + INTENT + "x = 1\n")
    with pytest.raises(ConfigError, match=r"desk\.toml:9 intents\[1\]\.x"):
        load(file)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (MAX_FILE_BYTES + 1), None])
def test_a_file_that_cannot_be_read_is_a_problem_not_a_crash(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "x.toml"
    if content is not None:
        file.write_bytes(content)
    assert [p.severity for p in check(file)] == ["error"]


# --- where a key stands ---


def test_every_way_of_writing_a_key_has_its_place() -> None:
    text = '''# a comment = "no"
a = 1
"b c" . d = """
x = 1
""" # not = a key
e = [
  "one", # ]
  { f = "}", g = [2, 3] },
]

[t.u]
v = 'it\\'
w = """quotes "" and \\""" in it"""""
[[l]]
m = 1979-05-27T07:32:00Z
[[l]]
  m = 2
[l.n]
o = true
[[l.p]]
q = 1
[[l.p]]
q = 2
'''
    tomllib.loads(text)
    found = {path: (place.line, place.column) for path, place in places(text).by_path.items()}
    assert found == {
        ("a",): (2, 1),
        ("b c",): (3, 1),
        ("b c", "d"): (3, 1),
        ("e",): (6, 1),
        ("e", 0): (7, 3),
        ("e", 1): (8, 3),
        ("e", 1, "f"): (8, 5),
        ("e", 1, "g"): (8, 14),
        ("e", 1, "g", 0): (8, 19),
        ("e", 1, "g", 1): (8, 22),
        ("t",): (11, 1),
        ("t", "u"): (11, 1),
        ("t", "u", "v"): (12, 1),
        ("t", "u", "w"): (13, 1),
        ("l",): (14, 1),
        ("l", 0): (14, 1),
        ("l", 0, "m"): (15, 1),
        ("l", 1): (16, 1),
        ("l", 1, "m"): (17, 3),
        ("l", 1, "n"): (18, 1),
        ("l", 1, "n", "o"): (19, 1),
        ("l", 1, "p"): (20, 1),
        ("l", 1, "p", 0): (20, 1),
        ("l", 1, "p", 0, "q"): (21, 1),
        ("l", 1, "p", 1): (22, 1),
        ("l", 1, "p", 1, "q"): (23, 1),
    }


VALUE = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text("ab\"'\\#=[]{}\n ,.", max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab .\"'", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(k)} = {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",\n ".join(written(each) for each in value) + "]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return str(value)


def paths_of(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, each in value.items():
            found |= paths_of(each, (*path, key))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            found |= paths_of(each, (*path, at))
    return found


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text("ab .\"'", min_size=1, max_size=3), VALUE, max_size=4))
def test_every_value_of_any_toml_has_a_place(document: dict[str, object]) -> None:
    text = "".join(f"{written(key)} = {written(value)} # = [\n" for key, value in document.items())
    assert tomllib.loads(text) == document
    assert set(places(text).by_path) == paths_of(document)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80))
def test_no_text_makes_the_checker_fail(text: str) -> None:
    check_text(text)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "greeting", "turns", "targets", "hours", "intents", "slots", "digits", "tools", "words"]
        ),
        st.one_of(
            VALUE,
            st.dictionaries(
                st.sampled_from(
                    ["a", "name", "values", "phrases", "reply", "type", "url", "time_zone", "prompt", "yes"]
                ),
                VALUE,
                max_size=4,
            ),
        ),
    )
)
def test_no_toml_makes_the_checker_fail(document: dict[str, object]) -> None:
    check_text("".join(f"{key} = {written(value)}\n" for key, value in document.items()))


# --- the smaller parts ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("What's up, Doc?", "what's up doc"),
        ("At 8:30am or 5 p.m.", "at eight thirty a.m. or five p.m."),
        ("I am here", "i am here"),
        ("24 hours, 365 days", "twenty four hours three hundred sixty five days"),
        ("the 21st and the 12th", "the twenty first and the twelfth"),
        ("Dr. Lee’s 9 o’clock", "doctor lee's nine o'clock"),
        ("ticket 12345", "ticket one two three four five"),
        ("room 007", "room zero zero seven"),
        ("10:05", "ten oh five"),
        ("well-being & 5%", "well being and five percent"),
        ("'quoted'", "quoted"),
        ("...", ""),
    ],
)
def test_text_becomes_the_words_that_are_spoken(text: str, said: str) -> None:
    assert " ".join(words(text)) == said


@given(st.text(max_size=50))
def test_words_of_words_are_the_same_words(text: str) -> None:
    once = words(text)
    assert words(" ".join(once)) == once


@given(st.integers(0, 9999))
def test_a_spelled_number_has_only_words(number: int) -> None:
    assert all(word.isalpha() for word in spell(number))


@given(st.text("0123456789", min_size=1, max_size=32))
def test_digits_that_are_said_are_the_digits_that_are_heard(digits: str) -> None:
    assert spoken_digits(say_digits(digits)) == digits


def test_digits_are_said_in_groups() -> None:
    assert say_digits("1234") == "one two three four"
    assert say_digits("123456") == "one two three, four five six"
    assert say_digits("1234567") == "one two three, four five six seven"


def test_a_template_knows_names_and_nothing_else() -> None:
    assert variables("{a} { b } {c.d}") == ("a", "b", "c.d")
    assert fill("{a} {b} {a.__class__}", {"a": "{b}", "b": "x"}) == "{b} x "


HOURS = Hours(
    time_zone("America/New_York"),
    {0: read_spans("08:00-12:00, 13:00-17:30"), 4: read_spans("09:00 - 24:00")},
    frozenset({datetime(2026, 11, 30).date()}),
)


@pytest.mark.parametrize(
    ("at", "is_open"),
    [
        ("2026-11-23T08:00-05:00", True),
        ("2026-11-23T07:59-05:00", False),
        ("2026-11-23T12:00-05:00", False),
        ("2026-11-23T17:29-05:00", True),
        ("2026-11-24T09:00-05:00", False),
        ("2026-11-27T23:59-05:00", True),
        ("2026-11-28T04:59+00:00", True),
        ("2026-11-28T05:00+00:00", False),
        ("2026-11-30T09:00-05:00", False),
        ("2026-07-06T12:30+00:00", True),
    ],
)
def test_opening_hours_follow_the_local_clock(at: str, is_open: bool) -> None:
    assert HOURS.is_open(datetime.fromisoformat(at)) is is_open


def test_opening_hours_are_said_as_people_say_them() -> None:
    monday = datetime(2026, 11, 23, 17, 30, tzinfo=UTC)  # 12:30 in New York
    assert HOURS.spoken(monday) == {
        "today": "Monday",
        "hours_today": "eight A M to noon and one P M to five thirty P M",
        "next_opening": "today at one P M",
    }
    saturday = datetime(2026, 11, 28, 17, 0, tzinfo=UTC)  # the Monday after is a closed day
    assert HOURS.spoken(saturday)["next_opening"] == "Friday at nine A M"
    assert HOURS.spoken(saturday)["hours_today"] == "closed"
    assert Hours(HOURS.zone, {}).spoken(monday)["next_opening"] == "not known"


@pytest.mark.parametrize(
    ("minute", "said"), [(0, "midnight"), (720, "noon"), (5, "twelve oh five A M"), (810, "one thirty P M")]
)
def test_a_time_of_day_is_said(minute: int, said: str) -> None:
    assert say(minute) == said


@pytest.mark.parametrize(
    "text", ["", "8-12", "08:00", "12:00-08:00", "08:00-25:00", "08:70-09:00", "08:00-12:00, 11:00-13:00"]
)
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_spans(text)


# --- other agents, and long conversations ---------------------------------------------------------------------------

MODEL = 'llm.provider = "openai"\nllm.model = "m"\n'
BILLING = '[agents.billing]\nfile = "billing.toml"\nwhen = "invoices"\n'


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(HEAD + text)
    return folder / "clinic.toml"


def test_agents_in_a_circle_are_each_read_once(tmp_path: Path) -> None:
    back = BILLING.replace("billing", "clinic") + 'greeting = "Here again."\nsummary = "From billing."\n'
    (tmp_path / "sub").mkdir()
    clinic = write(tmp_path, clinic=MODEL + BILLING, billing=MODEL + back)
    family = load_family(tmp_path / "sub" / ".." / "clinic.toml")
    assert list(family) == [str(clinic), str(tmp_path / "billing.toml")]
    assert family[str(clinic)].agents == {"billing": HandOff(str(tmp_path / "billing.toml"), "invoices")}
    [its] = family[str(tmp_path / "billing.toml")].agents.values()
    assert its == HandOff(str(clinic), "invoices", "Here again.", "From billing.")
    assert check(clinic) == []


def test_an_agents_file_that_is_not_there_is_a_mistake_of_the_one_that_names_it(tmp_path: Path) -> None:
    [problem] = check(write(tmp_path, clinic=MODEL + BILLING))
    assert (problem.key, problem.severity, problem.file) == ("agents.billing.file", "error", "")
    assert "billing.toml" in problem.message
    with pytest.raises(ConfigError, match=r"clinic\.toml:\d+ agents\.billing\.file"):
        load_family(tmp_path / "clinic.toml")


def test_a_mistake_in_another_agents_file_is_told_with_its_file(tmp_path: Path) -> None:
    clinic = write(tmp_path, clinic=MODEL + BILLING, billing=MODEL + "\n[turns]\nno_input_ms = 1\n")
    [problem] = check(clinic)
    assert (problem.key, problem.file) == ("turns.no_input_ms", str(tmp_path / "billing.toml"))
    with pytest.raises(ConfigError, match=r"billing\.toml:\d+ turns\.no_input_ms"):
        load_family(clinic)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[agents.Billing]\nfile = "b"\nwhen = "x"\n', "agents.Billing"),
        ('agents.billing = "b.toml"\n', "agents.billing"),
        ('[agents.billing]\nfile = "b.toml"\n', "agents.billing"),
        ('[agents.billing]\nfile = "b.toml"\nwhen = "x"\nfor = 1\n', "agents.billing.for"),
        (BILLING + '[tools.x]\ntype = "hand_off"\nagent = "biling"\n', "tools.x.agent"),
        (BILLING + '[tools.x]\ntype = "hand_off"\n', "tools.x"),
        (BILLING + '[tools.hand_off]\ntype = "hang_up"\n', "tools.hand_off"),
        (BILLING + '[[intents]]\nname = "a"\nphrases = ["go"]\nhand_off = "biling"\n', "intents[1].hand_off"),
        (
            BILLING + '[[intents]]\nname = "a"\nphrases = ["go"]\nhand_off = "billing"\ntool = "hang_up"\n',
            "intents[1].hand_off",
        ),
    ],
)
def test_what_is_wrong_with_hand_offs_is_told_by_its_key(text: str, key: str) -> None:
    assert [(found_key, severity) for _, found_key, severity in problems_of(MODEL + text)] == [(key, "error")]


def test_an_intent_that_hands_off_needs_no_reply() -> None:
    assert problems_of(BILLING + '[[intents]]\nname = "a"\nphrases = ["go"]\nhand_off = "billing"\n') == []


def test_a_long_conversation_is_summed_up_by_the_agents_model_or_another() -> None:
    definition, problems = read_text(HEAD + MODEL + "[context]\nmax_tokens = 900\n")
    assert problems == []
    assert definition is not None
    assert definition.context == ContextTerms(max_tokens=900)
    another = '[context]\nllm = { provider = "openai", model = "small" }\n'
    definition, problems = read_text(HEAD + INTENT + another)
    assert problems == []
    assert definition is not None
    assert definition.context == ContextTerms(llm=ProviderChoice("openai", {"model": "small"}))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (INTENT + "[context]\n", "context"),
        (INTENT + '[context]\nllm = { provider = "script" }\n', "context"),
        (INTENT + '[context]\nllm = { provider = "openai" }\n', "context.llm.model"),
        (INTENT + '[context]\nllm = { provider = "opnai", model = "m" }\n', "context.llm.provider"),
        (MODEL + "[context]\nkeep_messages = 1\n", "context.keep_messages"),
    ],
)
def test_what_is_wrong_with_a_context_is_told_by_its_key(text: str, key: str) -> None:
    assert [(found_key, severity) for _, found_key, severity in problems_of(text)] == [(key, "error")]
