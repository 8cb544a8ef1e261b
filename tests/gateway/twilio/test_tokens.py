import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import PeerError
from trunkline.gateway.twilio import tokens as module
from trunkline.gateway.twilio.tokens import MAX_TOKEN_CHARS, Tokens
from trunkline.types import CallId, CallSid

SID, OTHER_SID = CallSid("CA" + "0" * 32), CallSid("CA" + "1" * 32)
CALL = CallId("call-1")


def refusal(tokens: Tokens, token: str, sid: str = SID, now: float = 100.0) -> str:
    with pytest.raises(PeerError) as caught:
        tokens.redeem(token, CallSid(sid), now)
    assert caught.value.close_code == 1008
    return caught.value.reason


@given(st.text(st.characters(max_codepoint=0x2FF), max_size=40), st.floats(0, 1e9), st.floats(0, 59.9))
def test_a_token_opens_its_call_once(call_id: str, now: float, later: float) -> None:
    tokens = Tokens()
    token = tokens.issue(SID, CallId(call_id), now)
    assert tokens.redeem(token, SID, now + later) == call_id
    assert refusal(tokens, token, now=now + later) == "token_used"


def test_it_expires_after_a_minute() -> None:
    tokens = Tokens()
    token = tokens.issue(SID, CALL, 100.0)
    assert refusal(tokens, token, now=160.0) == "token_expired"
    assert tokens.redeem(token, SID, 159.99) == CALL


def test_it_is_bound_to_its_call_sid() -> None:
    tokens = Tokens()
    token = tokens.issue(SID, CALL, 100.0)
    assert refusal(tokens, token, OTHER_SID) == "token_forged"
    assert refusal(tokens, token, "\ud800") == "token_forged"
    assert tokens.redeem(token, SID, 100.0) == CALL


@given(st.data())
def test_no_changed_character_passes(data: st.DataObject) -> None:
    tokens = Tokens(b"k" * 32)
    token = tokens.issue(SID, CALL, 100.0)
    at = data.draw(st.integers(0, len(token) - 2))  # the last character of the MAC carries two unused bits
    drawn = data.draw(st.sampled_from("AZaz09-_."))  # drawn alike whatever the token's own random part is
    char = drawn if drawn != token[at] else "x"
    assert refusal(tokens, token[:at] + char + token[at + 1 :]) in ("token_forged", "token_malformed")


@given(st.text(max_size=600))
def test_noise_is_refused(noise: str) -> None:
    assert refusal(Tokens(), noise) in ("token_forged", "token_malformed")


def test_another_key_or_worker_is_refused() -> None:
    token = Tokens(b"k" * 32, worker="a").issue(SID, CALL, 100.0)
    assert refusal(Tokens(b"j" * 32, worker="a"), token) == "token_forged"
    assert refusal(Tokens(b"k" * 32, worker="b"), token) == "token_foreign"
    assert Tokens(b"k" * 32, worker="a").redeem(token, SID, 100.0) == CALL


def test_used_ones_are_forgotten_when_they_expire_and_never_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_USED", 3)
    tokens = Tokens()
    issued = [tokens.issue(SID, CALL, 100.0 + i) for i in range(4)]
    for token in issued[:3]:
        tokens.redeem(token, SID, 110.0)
    assert refusal(tokens, issued[3], now=110.0) == "token_memory_full"
    assert tokens.redeem(issued[3], SID, 161.0) == CALL  # two of the three have expired
    assert refusal(tokens, issued[3], now=161.0) == "token_used"


def test_a_duplicate_webhook_gets_another_token() -> None:
    tokens = Tokens()
    assert tokens.issue(SID, CALL, 100.0) != tokens.issue(SID, CALL, 100.0)


def test_it_fits_into_a_parameter() -> None:
    assert len(Tokens(worker="w" * 40).issue(SID, CallId("c" * 64), 1e9)) < MAX_TOKEN_CHARS


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens(b"short")
