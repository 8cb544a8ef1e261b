import sys
from typing import Any, cast

import pytest
from pydantic import SecretStr

from trunkline.app import _open_livekit
from trunkline.errors import ConfigError
from trunkline.settings import Livekit, Settings
from trunkline.testing.clock import ManualClock

SERVER = Livekit(url="wss://l.example.com", api_key="APIkey", api_secret=SecretStr("s" * 32))


def opened(given: Livekit) -> Any:
    return _open_livekit(Settings(livekit=given), cast(Any, None), cast(Any, None), ManualClock())


def test_without_a_server_nobody_joins_rooms() -> None:
    assert opened(Livekit()) is None


def test_a_server_without_its_sdk_is_one_line_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trunkline.gateway.livekit.rtc", None)
    with pytest.raises(ConfigError) as wrong:
        opened(SERVER)
    line = str(wrong.value)
    assert line.startswith("livekit.url = 'wss://l.example.com': needs LiveKit's SDK: pip install 'trunkline[livekit]'")
    assert "s" * 32 not in line
