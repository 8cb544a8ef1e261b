"""What a tenant's admin may not write in a script: whatever is this machine's, or its operator's."""

import pytest

from trunkline.agents.script.check import Problem, check_text, provider_names, read_text
from trunkline.agents.script.foreign import PROVIDERS, Shared

HEAD = 'name = "A"\ngreeting = "Hi."\n'
STANDINS = HEAD + 'stt.provider = "standin"\nllm.provider = "standin"\ntts.provider = "standin"\n'
NOTHING = Shared()
HOST = "https://models.example.com/v1"


def errors(text: str, shared: Shared = NOTHING) -> list[Problem]:
    return [problem for problem in check_text(text, shared) if problem.severity == "error"]


def tables(**providers: str) -> str:
    text = HEAD
    for kind in ("stt", "llm", "tts"):
        text += f"[{kind}]\n" + providers.get(kind, 'provider = "standin"') + "\n"
    return text


@pytest.mark.parametrize(
    ("kind", "table", "key"),
    [
        ("llm", f'provider = "openai"\nmodel = "m"\nbase_url = "{HOST}"', "llm.base_url"),
        ("llm", 'provider = "openai"\nmodel = "m"\nthird_party = false', "llm.third_party"),
        ("llm", 'provider = "remote"\ntargets = ["127.0.0.1:50051"]', "llm.targets"),
        ("llm", 'provider = "remote"\ntargets = ["unix:/run/secret.sock"]', "llm.targets"),
        ("stt", 'provider = "deepgram"\nurl = "wss://dg.example.com/v1/listen"', "stt.url"),
        ("stt", 'provider = "sherpa"\nmodel_dir = "/etc"', "stt.model_dir"),
        ("tts", 'provider = "sherpa"\nmodel_dir = "/etc"', "tts.model_dir"),
        ("tts", 'provider = "elevenlabs"\nvoice = "v"\nbase_url = "https://el.example.com"', "tts.base_url"),
        ("tts", f'provider = "openai"\nmodel = "m"\nvoice = "v"\nbase_url = "{HOST}"', "tts.base_url"),
    ],
)
def test_servers_and_folders_are_the_operators(kind: str, table: str, key: str) -> None:
    found = errors(tables(**{kind: table}))
    assert [problem.key for problem in found] == [key]
    assert "the operator may list it (shared." in found[0].message


def test_what_the_operator_lists_may_be_named_and_said_of() -> None:
    table = f'provider = "openai"\nmodel = "m"\nbase_url = "{HOST}"\nthird_party = false'
    assert errors(tables(llm=table), Shared(servers=frozenset({HOST}))) == []
    assert [problem.key for problem in errors(tables(llm=table), Shared(servers=frozenset({"https://x"})))] == [
        "llm.base_url",
        "llm.third_party",
    ]


def test_one_listed_server_of_two_is_not_enough() -> None:
    table = 'provider = "remote"\ntargets = ["gpu1.example.com:50051", "10.0.0.1:22"]\nplaintext = true'
    found = errors(tables(llm=table), Shared(servers=frozenset({"gpu1.example.com:50051"})))
    assert [problem.key for problem in found] == ["llm.targets", "llm.plaintext"]
    assert "10.0.0.1:22" in found[0].message


def test_files_of_keys_are_never_named() -> None:
    table = 'provider = "remote"\ntargets = ["gpu1.example.com:50051"]\ntls = true\ntls_ca = "/etc/passwd"'
    found = errors(tables(llm=table), Shared(servers=frozenset({"gpu1.example.com:50051"})))
    assert [problem.key for problem in found] == ["llm.tls_ca"]


def test_a_folder_is_not_looked_at_before_it_is_allowed() -> None:
    """The two answers would tell whether it is there."""
    there, not_there = (errors(tables(tts=f'provider = "sherpa"\nmodel_dir = "{at}"')) for at in ("/etc", "/nowhere"))
    assert there[0].message.replace("/etc", "") == not_there[0].message.replace("/nowhere", "")
    looked = errors(tables(tts='provider = "sherpa"\nmodel_dir = "/nowhere"'), Shared(folders=frozenset({"/nowhere"})))
    assert looked == [] or "operator" not in looked[0].message


@pytest.mark.parametrize("place", ["tools.book", "languages.es-ES.tools.book"])
def test_secrets_are_sent_only_where_they_are_listed(place: str) -> None:
    text = STANDINS + "[languages.es-ES]\n" + "".join(f'{n} = "Hola."\n' for n in ("greeting", "goodbye", "apology"))
    text += 'failure = "No."\nno_input = ["No."]\nfiller = ["No."]\n'
    text += f'[{place}]\ntype = "http"\nurl = "https://crm.example.com/"\n'
    text += f'[{place}.headers]\nAuthorization = "Bearer {{key:openai}} {{key:crm}}"\n'
    found = errors(text, Shared(secrets=frozenset({"crm"})))
    assert [problem.key for problem in found] == [f"{place}.headers.Authorization"]
    assert "'openai'" in found[0].message
    assert errors(text, Shared(secrets=frozenset({"crm", "openai"}))) == []
    assert Shared(secrets=frozenset({"crm"})).keys({"crm": "1", "openai": "2"}) == {"crm": "1"}


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (f'[realtime]\nprovider = "openai"\nmodel = "m"\nbase_url = "{HOST}"\n', "realtime.base_url"),
        ('[turn_detector]\nprovider = "remote"\ntargets = ["127.0.0.1:1"]\n', "turn_detector.targets"),
        (f'[context.llm]\nprovider = "openai"\nmodel = "m"\nbase_url = "{HOST}"\n', "context.llm.base_url"),
    ],
)
def test_it_holds_for_every_place_that_names_a_provider(table: str, key: str) -> None:
    assert [problem.key for problem in errors(STANDINS + table)] == [key]


def test_a_spare_and_a_languages_voice_are_looked_at_too() -> None:
    spare = HEAD + '[stt]\nprovider = "standin"\n[tts]\nprovider = "standin"\n'
    spare += f'[[llm]]\nprovider = "standin"\n[[llm]]\nprovider = "openai"\nmodel = "m"\nbase_url = "{HOST}"\n'
    assert [problem.key for problem in errors(spare)] == ["llm[2].base_url"]
    tongue = STANDINS + '[languages.en-GB.tts]\nprovider = "sherpa"\nmodel_dir = "/etc"\n'
    assert [problem.key for problem in errors(tongue)] == ["languages.en-GB.tts.model_dir"]


def test_every_provider_of_ours_is_judged_and_others_are_listed_first() -> None:
    kinds = ("stt", "llm", "tts", "realtime", "turn")
    ours = {f"{kind}.{name}" for kind in kinds for name in provider_names(kind)}
    assert ours <= PROVIDERS.keys()
    assert [key for key, _ in NOTHING.faults("tts", "another", {})] == ["provider"]
    assert list(Shared(providers=frozenset({"tts.another"})).faults("tts", "another", {"model_dir": "/"})) == []


def test_it_hands_calls_to_agents_of_the_desk_by_their_names() -> None:
    text = STANDINS + '[agents.money]\nagent = "billing-2"\nwhen = "invoices"\n'
    definition, found = read_text(text, foreign=NOTHING)
    assert found == []
    assert definition is not None
    assert definition.agents["money"].file == "billing-2"
    (problem,) = errors(STANDINS + '[agents.money]\nfile = "/etc/passwd"\nwhen = "invoices"\n')
    assert (problem.key, "names no files" in problem.message) == ("agents.money.file", True)
    (problem,) = errors(STANDINS + '[agents.money]\nagent = "../x"\nwhen = "invoices"\n')
    assert problem.key == "agents.money.agent"
    (problem,) = errors(STANDINS + '[agents.money]\nwhen = "invoices"\n')
    assert "agent is missing" in problem.message


def test_a_file_hands_calls_to_files() -> None:
    (problem,) = check_text(STANDINS + '[agents.money]\nagent = "billing"\nwhen = "invoices"\n')
    assert (problem.key, problem.message) == ("agents.money.agent", "is for AI agents of the desk: a file names a file")
    (problem,) = check_text(STANDINS + '[agents.money]\nwhen = "invoices"\n')
    assert "file is missing" in problem.message


def test_one_without_end_is_not_read() -> None:
    (problem,) = errors(STANDINS + "#" * 600_000)
    assert "longer" in problem.message
