from decimal import Decimal
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
        for name in ("Secret", "client_secret", "api_key_secret", "api_secret", "turn_secret", "secret_access_key"):
            shown = shown.replace(name, "")
        assert "secret" not in shown
        assert KEY not in shown


def test_a_list_of_tokens_in_the_file() -> None:
    Path("trunkline.toml").write_text('[twilio]\nauth_token = ["a", "b"]\n')
    assert load().twilio_tokens == ("a", "b")


def test_a_provider_key_may_lie_in_a_file() -> None:
    Path("key").write_text("sk-from-file\n")
    Path("trunkline.toml").write_text(
        '[openai]\napi_key_file = "key"\n[deepgram]\napi_key = "dg-secret"\n[elevenlabs]\napi_key_file = "key"\n'
    )
    settings = load()
    assert settings.provider_keys() == {
        "openai": "sk-from-file",
        "deepgram": "dg-secret",
        "elevenlabs": "sk-from-file",
    }
    assert "dg-secret" not in repr(settings)
    assert "dg-secret" in settings.secrets()


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
        ("[sip.trunks]\na = 5", "sip.trunks.a = (hidden): a section, written [sip.trunks.a]"),
        (
            "[sip.trunks.a]\npears = 1",
            "sip.trunks.a.pears = (hidden): no such setting; did you mean sip.trunks.a.peers?",
        ),
        (
            '[sip.trunks."A b"]\nhost = "h"',
            "sip.trunks.A b = (hidden): a name of small letters, digits, - and _, at most 40",
        ),
        ("[sip]\nenabled = 2", "sip.enabled = 2: auto, true or false"),
        ("[sip]\nstrangers = 404", "sip.strangers = 404: one of silent, 403"),
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


# --- SIP ---

NET = "IP addresses or networks, such as 192.0.2.10, 198.51.100.0/24"


def trunk_line(toml: str) -> str:
    (line,) = file_lines(f"[sip.trunks.a]\n{toml}")
    return line


def test_sip_without_settings_is_this_machine_only() -> None:
    sip = load().sip
    assert (sip.enabled, sip.host, sip.port, sip.tls_port, sip.trunks) == ("auto", "127.0.0.1", 5060, 5061, {})
    assert (sip.rtp_port_min, sip.rtp_port_max, sip.media_timeout_s, sip.lead_ms) == (10_000, 19_999, 30.0, 60)
    assert (sip.codecs, sip.strangers, sip.name_servers) == (("PCMU", "PCMA", "G722", "opus"), "silent", ())


@pytest.mark.parametrize(("written", "value"), [("true", True), ("FALSE", False), ("auto", "auto"), ("0", False)])
def test_sip_may_be_on_off_or_there_when_pjsua2_is(
    monkeypatch: pytest.MonkeyPatch, written: str, value: object
) -> None:
    monkeypatch.setenv("TRUNKLINE_SIP__ENABLED", written)
    assert load().sip.enabled is value or load().sip.enabled == value == "auto"


def test_a_trunk_in_variables_is_one_as_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("trunkline.toml").write_text('[sip.trunks.pbx]\npeers = "192.0.2.1"\nusername = "u"\n[sip]\nstrangers = 403\n')
    monkeypatch.setenv("TRUNKLINE_SIP__TRUNKS__PBX__PASSWORD", "1234567")
    monkeypatch.setenv("TRUNKLINE_SIP__TRUNKS__PBX__MAX_CALLS", "7")
    monkeypatch.setenv("TRUNKLINE_SIP__TRUNKS__CARRIER__PEERS", "198.51.100.0/24, 2001:db8::7")
    monkeypatch.setenv("TRUNKLINE_SIP__TRUNKS__CARRIER__HEADERS_IN", "X-Order=order, User-to-User=uui")
    settings = load()
    pbx, carrier = settings.sip.trunks["pbx"], settings.sip.trunks["carrier"]
    assert (pbx.username, pbx.max_calls, [str(n) for n in pbx.peers]) == ("u", 7, ["192.0.2.1/32"])
    assert [str(n) for n in carrier.peers] == ["198.51.100.0/24", "2001:db8::7/128"]
    assert carrier.headers_in == {"X-Order": "order", "User-to-User": "uui"}
    assert settings.sip.strangers == "403"
    assert "1234567" in settings.secrets()
    assert "1234567" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("SIP__HOST", "sip.example.com", "'sip.example.com': an IP address of this machine; 0.0.0.0 is all of them"),
        ("SIP__CODECS", "PCMU, GSM", "'PCMU, GSM': some of PCMU, PCMA, G722, opus, preferred first"),
        ("SIP__NAME_SERVERS", "dns.example.com", "'dns.example.com': IP or IP:PORT of DNS servers, such as "),
        ("SIP__ADVERTISED_ADDRESS", "0.0.0.0", "'0.0.0.0': the IP address that peers reach us at"),
        ("SIP__LEAD_MS", "50", "'50': a multiple of 20 from 20 to 200"),
        ("SIP__USER_AGENT", "a\nb", "'a\\nb': 1 to 100 ASCII characters"),
        ("SIP__TRUNKS__A__PEERS", "10.0.0.1/33", f"'10.0.0.1/33': {NET}"),
        ("SIP__TRUNKS__A__PEERS", "10.0.0.1/24", "'10.0.0.1/24': a network begins at its first address: 10.0.0.0/24"),
        ("SIP__TRUNKS__A__MAX_CALLS", "0", "'0': a whole number from 1 to 10000"),
        ("SIP__TRUNKS__A__TRANSPORT", "sctp", "'sctp': one of udp, tcp, tls"),
        ("SIP__TRUNKS__A__HOST", "sip:example.com", "'sip:example.com': HOST or HOST:PORT"),
        ("SIP__TRUNKS__A__HOST", "2001:db8::1", "'2001:db8::1': HOST or HOST:PORT, such as "),
        ("SIP__TRUNKS__A__CALLER_ID", "5550100", "'5550100': a phone number as +COUNTRY NUMBER"),
        ("SIP__TRUNKS__A__COUNTRY", "USA", "'USA': two-letter country codes"),
        ("SIP__TRUNKS__A__NUMBERS", "+1*2", "'+1*2': numbers as +COUNTRY NUMBER or as the peer sends them"),
        ("SIP__TRUNKS__A__PING_S", "1", "'1': 0 (none) or a number from 5 to 3600"),
        ("SIP__TRUNKS__A__HEADERS_IN", "X-A", "'X-A': a table, or in a variable: X-Order=order"),
        ("SIP__TRUNKS__A__HEADERS_IN", "X A=a", "'X A=a': names of SIP headers"),
        ("SIP__TRUNKS__A__HEADERS_IN", "X-A=A b", "'X-A=A b': names of attributes"),
        ("SIP__TRUNKS__A__HEADERS_OUT", "a=Via", "'a=Via': headers that are not the call's own, which Via is"),
        ("SIP__TRUNKS__A__USERNAME", 'a"b', "'a\"b': 1 to 128 ASCII characters without blanks and quotes"),
        ("SIP__TRUNKS__A__PROFILE", "cisco", "'cisco': one of generic, strict, twilio_elastic_sip, telnyx, asterisk"),
        ("SIP__TRUNKS__A__COST_PER_MINUTE", "cheap", "'cheap': a number from 0 to 1000, or a table of them: "),
        ("SIP__TRUNKS__A__COST_PER_MINUTE", "-1", "'-1': a number from 0 to 1000, or a table of them: "),
        ("SIP__TRUNKS__A__COST_PER_MINUTE", "nan", "'nan': a number from 0 to 1000, or a table of them: "),
        ("SIP__TRUNKS__A__COST_PER_MINUTE", "44=0.1", "'44=0.1': beginnings of numbers such as +1 or +4477, and * for"),
        ("SIP__TRUNKS__A__REGISTER", "maybe", "'maybe': true or false"),
        ("SIP__TRUNKS__A__REGISTER", "true", "'True': needs auth_username and auth_password as well"),
        ("SIP__TRUNKS__A__REGISTER_EXPIRES_S", "10", "'10': a whole number from 60 to 86400"),
        ("SIP__TRUNKS__A__REGISTRAR", "pbx:5060", "'pbx:5060': needs register = true as well"),
        (
            "SIP__TRUNKS__A__REGISTERS",
            "true",
            "(hidden): no such setting; did you mean TRUNKLINE_SIP__TRUNKS__A__REGISTER",
        ),
        ("OUTBOUND__RETRY_BUSY", "11", "'11': a whole number from 0 to 10"),
        ("OUTBOUND__RETRY_BUSY_AFTER_S", "1", "'1': a number from 10 to 86400"),
        ("SIP__TRUNKS__A__PASSWORD", "x" * 200, "(hidden): a text of 1 to 128 characters"),
        ("SIP__TRUNKS__A__PEER", "x", "(hidden): no such setting; did you mean TRUNKLINE_SIP__TRUNKS__A__PEERS?"),
    ],
)
def test_a_wrong_sip_variable_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str) -> None:
    if name != "SIP__TRUNKS__A__HOST":
        Path("trunkline.toml").write_text('[sip.trunks.a]\nhost = "h"\n')
    (found,) = lines(monkeypatch, **{name: value})
    assert found.startswith(f"TRUNKLINE_{name} = {line}")


def test_a_trunk_that_registers_and_costs_something(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("trunkline.toml").write_text(
        "[sip.trunks.a]\n"
        'registrar = "pbx.example"\nregister = true\nauth_username = "100"\nauth_password = "p"\npeers = "192.0.2.1"\n'
        'cost_per_minute = { "+1" = 0.0085, "+44*" = "0.02", "*" = 0.3 }\n'
        '[sip.trunks.b]\nhost = "h"\ncost_per_minute = 0.01\n[sip.trunks.c]\nhost = "h"\n'
    )
    monkeypatch.setenv("TRUNKLINE_SIP__TRUNKS__C__COST_PER_MINUTE", "+1=0.007, *=0.05")
    monkeypatch.setenv("TRUNKLINE_SIP__TRUNKS__A__REGISTER_EXPIRES_S", "600")
    a, b, c = load().sip.trunks.values()
    assert (a.registers, a.registrar, a.register_expires_s, a.contact_user) == (True, "pbx.example", 600, None)
    assert a.cost_per_minute == {"+1": Decimal("0.0085"), "+44": Decimal("0.02"), "*": Decimal("0.3")}
    assert b.cost_per_minute == {"*": Decimal("0.01")}
    assert c.cost_per_minute == {"+1": Decimal("0.007"), "*": Decimal("0.05")}
    assert (b.registers, b.profile, c.register_expires_s) == (False, "generic", 300)


def test_a_peer_is_an_address_because_a_name_may_come_to_mean_another_machine() -> None:
    assert trunk_line('peers = ["192.0.2.1", "sip.example.com"]') == (
        "sip.trunks.a.peers = ['192.0.2.1', 'sip.example.com']: IP addresses or networks; a name may come to mean "
        "another machine, so look it up (dig +short sip.example.com) and write its addresses"
    )


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("", "peers = '': who calls us (peers), whom we call (host), or both must be set"),
        ('username = "u"\npeers = "192.0.2.1"', "username = 'u': needs password as well"),
        ('password = "p"\npeers = "192.0.2.1"', "password = '**********': needs username as well"),
        ('auth_username = "u"\nhost = "h"', "auth_username = 'u': needs auth_password as well"),
        ('username = "u"\npassword = "p"\nhost = "h"', "username = 'u': needs peers as well"),
        ('proxy = "p"\npeers = "192.0.2.1"', "proxy = 'p': needs host as well"),
        ('peers = "0.0.0.0/0"', "peers = '0.0.0.0/0': lets anybody call, so username and password must be set"),
        ('peers = ["::/1"]', "peers = '::/1': lets anybody call"),
        ('peers = "192.0.2.1"\nregister = true', "register = 'True': needs registrar or host as well"),
        ('host = "h"\nregister = true', "register = 'True': needs auth_username and auth_password as well"),
        ('host = "h"\ncontact_user = "100"', "contact_user = '100': needs register = true as well"),
        ('host = "h"\ndigest_algorithms = "SHA-512-256"', "digest_algorithms = 'SHA-512-256': SHA-256, MD5, or both"),
        ('host = "h"\ndigest_algorithms = []', "digest_algorithms = []: SHA-256, MD5, or both"),
        ('host = "h"\nsrtp = "required"', "srtp = 'required': needs transport = \"tls\": over udp the keys would be"),
    ],
)
def test_what_a_trunk_needs_or_must_not_be(toml: str, line: str) -> None:
    assert trunk_line(toml).startswith(f"sip.trunks.a.{line}")


@pytest.mark.parametrize(
    "toml",
    [
        'peers = "0.0.0.0/0"\nusername = "u"\npassword = "p"',
        'peers = "10.0.0.0/8"',
        'host = "h"\nsrtp = "required"\ntransport = "tls"',
        'peers = "192.0.2.1"\nsrtp = "required"',
        'host = "[2001:db8::1]:5061"\nproxy = "192.0.2.1:5070"',
        'host = "h"\nnumbers = ["+1415*", "100", "clinic"]\nblock = "anonymous"',
    ],
)
def test_what_a_trunk_may_be(toml: str) -> None:
    Path("trunkline.toml").write_text(f"[sip.trunks.a]\n{toml}\n")
    assert list(load().sip.trunks) == ["a"]


def test_sip_reachable_from_outside_needs_a_trunk_that_says_who_may_call(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "reachable from outside, so at least one sip.trunks.NAME with peers must be set"
    assert lines(monkeypatch, SIP__HOST="0.0.0.0") == [f"TRUNKLINE_SIP__HOST = '0.0.0.0': {line}"]
    assert lines(monkeypatch, SIP__TRUNKS__A__HOST="h") == [f"TRUNKLINE_SIP__HOST = '0.0.0.0': {line}"]
    monkeypatch.setenv("TRUNKLINE_SIP__TRUNKS__A__PEERS", "192.0.2.1")
    assert load().sip.host == "0.0.0.0"
    monkeypatch.delenv("TRUNKLINE_SIP__TRUNKS__A__PEERS")
    monkeypatch.setenv("TRUNKLINE_SIP__ENABLED", "false")
    assert load().sip.enabled is False


def test_a_peer_is_of_one_trunk() -> None:
    assert file_lines('[sip.trunks.a]\npeers = "192.0.2.1"\n[sip.trunks.b]\npeers = "192.0.2.1/32"') == [
        "sip.trunks.b.peers = '192.0.2.1/32': is sip.trunks.a already: a call must be of one trunk"
    ]


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ('tls_port = 5060\ntls_cert = "k"\ntls_key = "k"', "sip.tls_port = '5060': another than sip.port (5060)"),
        ("rtp_port_min = 20000", "sip.rtp_port_max = '19999': above sip.rtp_port_min (20000)"),
        ("port = 10000", "sip.port = '10000': outside of sip.rtp_port_min to sip.rtp_port_max"),
        ('tls_key = "k"', "sip.tls_key = 'k': needs sip.tls_cert as well"),
        ("tls_verify_client = true", "sip.tls_verify_client = 'True': needs sip.tls_ca as well"),
        ('on_machine = "hang_up"', "sip.on_machine = 'hang_up': needs sip.machine_detection as well"),
        (
            'codecs = ["PCMU"]\n[sip.trunks.a]\nhost = "a"\ncodecs = ["G722"]',
            "sip.trunks.a.codecs = 'G722': is none of sip.codecs",
        ),
    ],
)
def test_sip_settings_that_do_not_go_together(toml: str, line: str) -> None:
    Path("k").write_text("x")
    assert file_lines(f"[sip]\n{toml}") == [line]


SID = "AC" + "0a" * 16


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        (
            f'account_sid = "{SID}"',
            f"twilio.account_sid = '{SID}': needs twilio.api_key_sid and api_key_secret, or auth_token, as well",
        ),
        ('api_key_secret = "hush"', "twilio.api_key_secret = '**********': needs twilio.api_key_sid as well"),
        (
            'on_machine = "hang_up"',
            "twilio.on_machine = 'hang_up': needs twilio.machine_detection as well",
        ),
    ],
)
def test_twilio_settings_that_do_not_go_together(toml: str, line: str) -> None:
    assert file_lines(f"[twilio]\n{toml}") == [line]


def test_an_account_logs_in_by_its_api_key_or_else_its_token() -> None:
    Path("trunkline.toml").write_text(f'[twilio]\naccount_sid = "{SID}"\nauth_token = ["new", "old"]\n')
    assert load().twilio.login == (SID, "new")
    with Path("trunkline.toml").open("a") as file:
        file.write(f'api_key_sid = "SK{"0b" * 16}"\napi_key_secret = "hush"\n')
    settings = load()
    assert settings.twilio.login == ("SK" + "0b" * 16, "hush")
    assert "hush" in settings.secrets()


def test_a_turn_secret_is_a_secret_and_goes_with_a_turn_server() -> None:
    settings = Settings.model_validate({"webrtc": {"ice_servers": ["turn:a.example"], "turn_secret": "hush"}})
    assert "hush" in settings.secrets()
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ice_servers": ["turn:a.example"]},
        {"relay_only": True},
        {"ice_servers": ["http://a.example"]},
        {"port_min": 3000, "port_max": 2000},
        {"addresses": ["0.0.0.0"]},
    ],
)
def test_webrtc_that_cannot_be_is_said(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"turn|port_min|all of them"):
        Settings.model_validate({"webrtc": wrong})


def test_audio_is_kept_only_for_a_time_that_somebody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(monkeypatch, RECORD="true") == [
        "TRUNKLINE_RECORD = 'True': needs privacy.recordings_days as well: how long audio is kept"
    ]
    monkeypatch.setenv("TRUNKLINE_PRIVACY__RECORDINGS_DAYS", "30")
    assert load().record


def test_a_key_service_is_a_command_or_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("vault:x", "command:", " "):
        assert "command: PROGRAM ARGUMENTS" in lines(monkeypatch, PRIVACY__KMS=wrong)[0]
