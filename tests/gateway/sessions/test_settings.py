"""[sessions], [livekit] and [regions.NAME]."""

from pathlib import Path

import pytest

from trunkline.errors import ConfigError
from trunkline.gateway.regions import Region
from trunkline.gateway.sessions.opening import our_regions
from trunkline.settings import Settings, load

REGIONS = """
region = "eu"
[regions.eu]
url = "https://eu.example.com/"
lat = 50.11
lon = 8.68
[regions.us]
url = "https://us.example.com"
lat = 38.9
lon = -77.45
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRUNKLINE_TEST_REDIS_URL", raising=False)  # of the tests beside these, and no setting


def loaded(text: str) -> Settings:
    Path("trunkline.toml").write_text(text)
    return load()


def test_regions_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_REGIONS__AU__URL", "https://au.example.com")
    monkeypatch.setenv("TRUNKLINE_REGIONS__AU__LAT", "-33.87")
    monkeypatch.setenv("TRUNKLINE_REGIONS__AU__LON", "151.21")
    found = {region.name: region for region in our_regions(loaded(REGIONS))}
    assert found == {
        "eu": Region("eu", "https://eu.example.com", 50.11, 8.68),
        "us": Region("us", "https://us.example.com", 38.9, -77.45),
        "au": Region("au", "https://au.example.com", -33.87, 151.21),
    }


def test_without_regions_ours_is_the_only_one() -> None:
    assert our_regions(loaded("[http]\nport = 9000\n")) == [Region("local", "http://127.0.0.1:9000")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (REGIONS.replace('"eu"', '"mars"', 1), "region = 'mars': one of [regions.NAME]: eu, us"),
        (REGIONS.replace("50.11", "91"), "regions.eu.lat = 91: a number from -90 to 90"),
        (REGIONS.replace("https://us", "us"), "regions.us.url = 'us.example.com': an http:// or https:// URL"),
        ('[sessions]\nkey = "short"\n', "sessions.key = (hidden): at least 32 characters, for example from: "),
        ("[sessions]\nidle_seconds = 0\n", "sessions.idle_seconds = 0: a whole number from 5 to 86400"),
        ('[livekit]\nurl = "wss://l"\n', "livekit.url = 'wss://l': needs livekit.api_key and livekit.api_secret"),
        ('[livekit]\napi_secret = "x"\n', "livekit.api_secret = '(hidden)': needs livekit.url and livekit.api_key"),
        ('[livekit]\nurl = "https://l"\n', "livekit.url = 'https://l': a ws:// or wss:// URL"),
    ],
)
def test_what_is_wrong_is_one_line(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        loaded(text)
    assert str(wrong.value).startswith(line)
    assert '"x"' not in str(wrong.value)


def test_secrets_never_show() -> None:
    given = loaded(
        f'[sessions]\nkey = "{"k" * 40}"\n[livekit]\nurl = "wss://l"\napi_key = "APIk"\napi_secret = "hush"\n'
    )
    assert "k" * 40 in given.secrets()
    assert "hush" in given.secrets()
    assert "hush" not in repr(given)
