"""What is told of a request is of what the server got."""

import hashlib
import json

from tests.agents.test_llm_openai import ASKED, collect, with_server
from tests.fakes.openai_server import Answer, OpenAiServer
from trunkline.agents.llm.openai import OpenAiSession
from trunkline.agents.prompts import Told, canonical, prompt_of, sha256_of


def test_a_requests_hash_is_that_of_the_body_the_server_received() -> None:
    async def test(server: OpenAiServer, session: OpenAiSession) -> None:
        for answer in ("At eight.", "Yes."):
            server.answers.append(Answer(answer))
            await collect(session, ASKED)
            body = server.requests[-1].body
            text = json.dumps(body, sort_keys=True, separators=(",", ":"))
            assert prompt_of(session) == hashlib.sha256(text.encode()).hexdigest()

    with_server(test)


def test_another_word_is_another_hash_and_the_order_of_keys_none() -> None:
    assert sha256_of({"a": 1, "b": "é"}) == sha256_of({"b": "é", "a": 1})
    assert sha256_of({"a": 1}) != sha256_of({"a": 2})
    assert canonical({"b": "é", "a": [1]}) == b'{"a":[1],"b":"\\u00e9"}'


def test_what_a_session_was_told_is_told_message_by_message() -> None:
    one, other = Told(), Told()
    one.add(b"ab")
    one.add(b"c")
    other.add(b"a")
    other.add(b"bc")
    assert one.sha256 != other.sha256
    before = one.sha256
    assert one.sha256 == before
    one.add(b"d")
    assert one.sha256 != before


def test_whoever_tells_none_has_none() -> None:
    assert prompt_of(object()) == ""
    assert prompt_of(None) == ""
