from pathlib import Path

import pytest

from trunkline.errors import ConfigError
from trunkline.testing.caller.commands import sip_options


def test_a_command_line_makes_sip_options() -> None:
    options = sip_options("bob:a:b", ["pcma"], ["X-A: 1: 2"], Path("ca.pem"), dtmf="info")
    assert (options.username, options.password, options.laws) == ("bob", "a:b", ("alaw",))
    assert (list(options.headers), options.dtmf, options.ca_file) == ([("X-A", "1: 2")], "info", Path("ca.pem"))
    assert "a:b" not in repr(options)
    assert sip_options("", [], [], None).laws == ("mulaw", "alaw")
    assert sip_options("", [], [], None).credentials is None


@pytest.mark.parametrize(
    ("auth", "codecs", "headers"),
    [("bob", [], []), (":x", [], []), ("", ["g729"], []), ("", [], ["X"]), ("", [], ["X: a\r\nY: b"])],
)
def test_what_cannot_be_is_refused(auth: str, codecs: list[str], headers: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        sip_options(auth, codecs, headers, None)
    assert "x" not in str(refused.value.value)  # no password in an error
