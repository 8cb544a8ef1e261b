from pathlib import Path

import pytest

from trunkline.errors import ConfigError
from trunkline.settings import Settings, WrongSettings, load

KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _empty_folder_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith("TRUNKLINE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def lines(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    for name, value in variables.items():
        monkeypatch.setenv(f"TRUNKLINE_{name}", value)
    with pytest.raises(ConfigError) as caught:
        load()
    return str(caught.value).splitlines()


def file_lines(toml: str) -> list[str]:
    Path("trunkline.toml").write_text(toml)
    with pytest.raises(WrongSettings) as caught:
        load()
    return str(caught.value).splitlines()


def test_nothing_set_is_loopback_and_open() -> None:
    settings = load()
    assert (settings.http.host, settings.http.port, settings.sip.port) == ("127.0.0.1", 8080, 5060)
    assert settings.http.origin == "http://127.0.0.1:8080"
    assert settings.database is None
    assert (settings.agent, settings.record, settings.api_keys, settings.twilio_tokens) == (None, False, (), ())


def test_the_environment_wins_over_the_file_key_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("trunkline.toml").write_text('data_dir = "here"\n[http]\nhost = "127.0.0.2"\nport = 1111\n')
    monkeypatch.setenv("TRUNKLINE_HTTP__PORT", "2222")
    settings = load()
    assert (settings.http.host, settings.http.port, settings.data_dir) == ("127.0.0.2", 2222, Path("here"))


def test_another_file_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text("[limits]\nmax_calls = 7\n")
    assert load(path).limits.max_calls == 7


def test_secrets_come_as_one_or_many_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("trunkline.toml").write_text(f'[http]\napi_key = "{KEY}"\n[openai]\napi_key = "sk-secret"\n')
    monkeypatch.setenv("TRUNKLINE_TWILIO__AUTH_TOKEN", "12345, secret-old")
    monkeypatch.setenv("TRUNKLINE_DATABASE_URL", "postgresql://u:secret@db/t")
    settings = load()
    assert settings.twilio_tokens == ("12345", "secret-old")
    assert settings.api_keys == (KEY,)
    assert settings.provider_keys() == {"openai": "sk-secret"}
    assert settings.database == "postgresql://u:secret@db/t"
    assert set(settings.secrets()) == {"12345", "secret-old", KEY, "sk-secret", "secret"}
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "secret" not in shown.replace("Secret", "")
        assert KEY not in shown


def test_a_list_of_tokens_in_the_file() -> None:
    Path("trunkline.toml").write_text('[twilio]\nauth_token = ["a", "b"]\n')
    assert load().twilio_tokens == ("a", "b")


def test_a_provider_key_may_lie_in_a_file() -> None:
    Path("key").write_text("sk-from-file\n")
    Path("trunkline.toml").write_text('[openai]\napi_key_file = "key"\n')
    assert load().provider_keys() == {"openai": "sk-from-file"}


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_TWILIO__AUTH_TOKEN", "")
    monkeypatch.setenv("TRUNKLINE_NO_SUCH_THING", "")
    assert load().twilio_tokens == ()


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("HTTP__PORT", "99999", "TRUNKLINE_HTTP__PORT = '99999': a whole number from 1 to 65535"),
        ("HTTP__PORT", "web", "TRUNKLINE_HTTP__PORT = 'web': a whole number from 1 to 65535"),
        ("SIP__PORT", "0", "TRUNKLINE_SIP__PORT = '0': a whole number from 1 to 65535"),
        ("RECORD", "maybe", "TRUNKLINE_RECORD = 'maybe': true or false"),
        ("LOG__LEVEL", "loud", "TRUNKLINE_LOG__LEVEL = 'loud': one of debug, info, warning, error"),
        ("TWILIO__START_TIMEOUT_S", "900", "TRUNKLINE_TWILIO__START_TIMEOUT_S = '900': a number from 1 to 60"),
        ("MEDIA__MESSAGE_MS", "30", "TRUNKLINE_MEDIA__MESSAGE_MS = '30': a multiple of 20 from 20 to 200"),
        (
            "MEDIA__LEAD_MS_MIN",
            "2000",
            "TRUNKLINE_MEDIA__LEAD_MS_MIN = '2000': at most media.lead_ms_max (1000)",
        ),
        ("AGENT", "no-such.toml", "TRUNKLINE_AGENT = 'no-such.toml': an existing file"),
        ("HTTP__TLS_CERT", "no.pem", "TRUNKLINE_HTTP__TLS_CERT = 'no.pem': an existing file"),
        ("OUTBOUND__ALLOW", "USA", "TRUNKLINE_OUTBOUND__ALLOW = 'USA': two-letter country codes, such as US, GB"),
        ("OTEL__ENDPOINT", "host:4318", "TRUNKLINE_OTEL__ENDPOINT = 'host:4318': an http:// or https:// URL"),
        (
            "TWILIO__FALLBACK_NUMBER",
            "555",
            "TRUNKLINE_TWILIO__FALLBACK_NUMBER = '555': "
            "a phone number as +COUNTRY NUMBER without spaces, such as +14155550100",
        ),
        (
            "HTTP__API_KEY",
            "short",
            "TRUNKLINE_HTTP__API_KEY = (hidden): at least 16 characters, for example from: openssl rand -hex 24",
        ),
        (
            "DATABASE_URL",
            "mysql://u:secret@h/d",
            "TRUNKLINE_DATABASE_URL = (hidden): sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME",
        ),
        (
            "REDIS_URL",
            "secret.example.com",
            "TRUNKLINE_REDIS_URL = (hidden): redis://HOST:PORT/DB, rediss://... or unix://PATH",
        ),
        (
            "HTTP__HSOT",
            "secret",
            "TRUNKLINE_HTTP__HSOT = (hidden): no such setting; did you mean TRUNKLINE_HTTP__HOST?",
        ),
        ("HTTP", "1", "TRUNKLINE_HTTP = (hidden): no such setting; did you mean TRUNKLINE_HTTP__HOST?"),
        ("HTTP", "{", "TRUNKLINE_HTTP = (hidden): no such setting; did you mean TRUNKLINE_HTTP__HOST?"),
        ("ZZZ", "1", "TRUNKLINE_ZZZ = (hidden): no such setting"),
        ("AGENT", "x\ny", "TRUNKLINE_AGENT = 'x\\ny': an existing file"),
        ("AGENT", "x" * 500, f"TRUNKLINE_AGENT = '{'x' * 76}...: an existing file"),
    ],
)
def test_a_wrong_variable_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str) -> None:
    assert lines(monkeypatch, **{name: value}) == [line]


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("[http]\nprot = 1", "http.prot = (hidden): no such setting; did you mean http.port?"),
        ("htpp = 3", "htpp = (hidden): no such setting; did you mean http?"),
        ("[htpp]\nport = 3", "htpp = (hidden): no such setting; did you mean http?"),
        ("sip = 5", "sip = (hidden): a section, written [sip]"),
        ('[http]\nport = "web"', "http.port = 'web': a whole number from 1 to 65535"),
        ("[http]\nport = true", "http.port = True: a whole number from 1 to 65535"),
        ("[http]\nhost = 5", "http.host = 5: a text of 1 to 253 characters"),
        ('[http]\nhost = ""', "http.host = '': a text of 1 to 253 characters"),
        ("data_dir = 5", "data_dir = 5: a path"),
        ("agent = 5", "agent = 5: a path"),
        ('[twilio]\nauth_token = ["a", 7]', "twilio.auth_token = (hidden): a text or a list of texts"),
        ('[twilio]\nauth_token = [" "]', "twilio.auth_token = (hidden): must not be blank"),
        ('[twilio]\nfallback_text = ""', "twilio.fallback_text = '': a text of 1 to 500 characters"),
        ("[openai]\napi_key = 5", "openai.api_key = (hidden): a text"),
        ('x = = "secret"', "config file = 'trunkline.toml': valid TOML; look at line 1, column 5"),
    ],
)
def test_a_wrong_line_of_the_file_is_one_line(toml: str, line: str) -> None:
    assert file_lines(toml) == [line]


def test_two_settings_that_exclude_or_need_each_other(tmp_path: Path) -> None:
    Path("k").write_text("x")
    assert file_lines('[openai]\napi_key = "a"\napi_key_file = "k"') == [
        "openai.api_key_file = 'k': this or api_key, not both"
    ]
    assert file_lines('[http]\ntls_key = "k"') == ["http.tls_key = 'k': needs http.tls_cert as well"]


def test_every_problem_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = lines(monkeypatch, HTTP__PORT="0", RECORD="maybe", NOPE="1")
    assert [line.partition(" ")[0] for line in found] == ["TRUNKLINE_NOPE", "TRUNKLINE_RECORD", "TRUNKLINE_HTTP__PORT"]


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^config file = '.*nope.toml': a readable TOML file \(no such file"):
        load(tmp_path / "nope.toml")


BOTH = "reachable from outside, so both twilio.auth_token and http.api_key must be set"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "voice.example.com"])
def test_a_bind_beyond_loopback_needs_carrier_token_and_api_key(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert lines(monkeypatch, HTTP__HOST=host) == [f"TRUNKLINE_HTTP__HOST = '{host}': {BOTH}"]
    assert lines(monkeypatch, HTTP__API_KEY=KEY) == [f"TRUNKLINE_HTTP__HOST = '{host}': {BOTH}"]
    monkeypatch.delenv("TRUNKLINE_HTTP__API_KEY")
    assert lines(monkeypatch, TWILIO__AUTH_TOKEN="t") == [f"TRUNKLINE_HTTP__HOST = '{host}': {BOTH}"]
    monkeypatch.setenv("TRUNKLINE_HTTP__API_KEY", KEY)
    assert load().http.host == host


def test_a_public_url_needs_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://voice.example.com"
    assert lines(monkeypatch, HTTP__PUBLIC_URL=url) == [f"TRUNKLINE_HTTP__PUBLIC_URL = '{url}': {BOTH}"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_open(host: str) -> None:
    Path("trunkline.toml").write_text(f'[http]\nhost = "{host}"\n')
    assert load().http.host == host


@pytest.mark.parametrize(
    "url",
    [
        "voice.example.com",
        "http://voice.example.com",
        "https://voice.example.com/twilio",
        "https://voice.example.com?x=1",
        "https://user@voice.example.com",
        "https://voice.example.com:port",
        "https://",
        "ftp://127.0.0.1",
        "https://voice.example.com /",
    ],
)
def test_a_public_url_is_an_https_origin(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    (line,) = lines(monkeypatch, HTTP__PUBLIC_URL=url)
    assert line == (
        f"TRUNKLINE_HTTP__PUBLIC_URL = '{url}': "
        "an https origin without a path, such as https://voice.example.com (http only for loopback)"
    )


@pytest.mark.parametrize(
    ("http", "origin"),
    [
        ('public_url = "https://Voice.Example.com/"', "https://voice.example.com"),
        ('public_url = "https://voice.example.com:8443"', "https://voice.example.com:8443"),
        ('public_url = "http://127.0.0.1:9000"', "http://127.0.0.1:9000"),
        ('host = "0.0.0.0"', "http://127.0.0.1:8080"),
        ('host = "::1"\nport = 81', "http://[::1]:81"),
    ],
)
def test_the_origin_is_the_public_one_else_where_we_listen(http: str, origin: str) -> None:
    Path("trunkline.toml").write_text(f'[http]\n{http}\napi_key = "{KEY}"\n[twilio]\nauth_token = "t"\n')
    assert load().http.origin == origin


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().http.port = 1


def test_keys_for_tools_have_the_names_an_admin_gives_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUNKLINE_KEYS__APPOINTMENTS", "s3cret")
    settings = load()
    assert settings.provider_keys()["appointments"] == "s3cret"
    assert "s3cret" in settings.secrets()
    assert "s3cret" not in repr(settings)
