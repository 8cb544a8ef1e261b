"""The `http` tool against a local server: what goes out, what may come back, and what never happens."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.agents.script.model import Tool
from trunkline.agents.tools.http import HttpToolError, HttpTools, build_url, extract
from trunkline.fetching import resolve

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Answers every connection with the same bytes; keeps what it was sent."""

    def __init__(self, answer: bytes | None = OK) -> None:
        self.answer, self.heads, self.bodies, self.port = answer, list[str](), list[bytes](), 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            length = next((int(x[15:]) for x in head.lower().split("\r\n") if x.startswith("content-length:")), 0)
            self.bodies.append(await reader.readexactly(length))
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def with_server(
    test: Callable[[Server, HttpTools], Awaitable[None]],
    answer: bytes | None = OK,
    *,
    allow_private: bool = True,
    addresses: list[str] | None = None,
    keys: Mapping[str, str] | None = None,
) -> None:
    async def run() -> None:
        async def lookup(host: str, port: int) -> list[str]:
            return addresses if addresses is not None else ["127.0.0.1"]

        fake = Server(answer)
        server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
        fake.port = server.sockets[0].getsockname()[1]
        tools = HttpTools(keys, allow_private=allow_private, resolve=lookup)
        try:
            await test(fake, tools)
        finally:
            await tools.close()
            server.close()

    asyncio.run(run())


def tool(server: Server, path: str = "/x", **more: Any) -> Tool:
    return Tool("t", "http", url=f"http://clinic.example:{server.port}{path}", **more)


def failure_of(answer: bytes | None = OK, values: Mapping[str, str] | None = None, **more: Any) -> str:
    codes: list[str] = []
    guard = {name: more.pop(name) for name in ("allow_private", "addresses", "keys") if name in more}

    async def test(server: Server, tools: HttpTools) -> None:
        with pytest.raises(HttpToolError) as caught:
            await tools.run(tool(server, **more), values or {})
        codes.append(caught.value.code)

    with_server(test, answer, **guard)
    return codes[0]


def reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_a_request_names_its_host_though_it_goes_to_the_judged_address() -> None:
    async def test(server: Server, tools: HttpTools) -> None:
        answer = await tools.run(tool(server, "/a/{day}?q={note}"), {"day": "New Year", "note": "a&b=c"})
        assert answer == "{}"
        lines = server.heads[0].split("\r\n")
        assert lines[0] == "GET /a/New%20Year?q=a%26b%3Dc HTTP/1.1"
        assert f"Host: clinic.example:{server.port}" in lines
        assert "Accept-Encoding: identity" in lines

    with_server(test)


def test_a_body_is_json_whatever_a_slot_holds() -> None:
    async def test(server: Server, tools: HttpTools) -> None:
        body = {"who": {"name": "{name}", "n": 5}, "list": ["{name}", True]}
        await tools.run(tool(server, method="POST", body=body), {"name": '"},{"x'})
        assert json.loads(server.bodies[0]) == {"who": {"name": '"},{"x', "n": 5}, "list": ['"},{"x', True]}
        assert server.heads[0].startswith("POST /x ")
        assert "Content-Type: application/json" in server.heads[0]

    with_server(test)


def test_a_key_of_the_settings_may_stand_in_a_header() -> None:
    async def test(server: Server, tools: HttpTools) -> None:
        await tools.run(tool(server, headers={"Authorization": "Bearer {key:clinic}"}), {})
        assert "Authorization: Bearer sesame" in server.heads[0]

    with_server(test, keys={"clinic": "sesame"})
    assert failure_of(headers={"Authorization": "Bearer {key:other}"}, keys={"clinic": "sesame"}) == "no_key"


def test_variables_are_taken_from_the_answer() -> None:
    async def test(server: Server, tools: HttpTools) -> None:
        found = await tools.run(tool(server, result={"time": "appointment.time"}), {})
        assert found == {"time": "nine"}

    with_server(test, reply(b'{"appointment": {"time": "nine"}}'))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reply(b"", "302 Found", "Location: http://127.0.0.1/"), "bad_status"),
        (reply(b"no", "404 Not Found"), "bad_status"),
        (reply(b"no", "500 Oops"), "bad_status"),
        (reply(b"x" * 101), "too_large"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"40\r\n" + b"y" * 64 + b"\r\n" * 1 + b"40\r\n",
            "unavailable",
        ),
        (reply(b"{", "200 OK"), "bad_answer"),
        (reply(b"[]", "200 OK"), "bad_answer"),
        (reply(b"{}", "200 OK", "Content-Encoding: gzip"), "bad_answer"),
        (b"garbage\r\n\r\n", "unavailable"),
        (b"", "unavailable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "unavailable"),
        (None, "timeout"),
    ],
)
def test_an_answer_that_is_none_has_a_code(answer: bytes | None, code: str) -> None:
    assert failure_of(answer, max_bytes=100, timeout_ms=100, result={"x": "x"}) == code


def test_a_redirect_is_not_followed() -> None:
    async def test(server: Server, tools: HttpTools) -> None:
        server.answer = reply(b"", "307 Temporary Redirect", f"Location: http://127.0.0.1:{server.port}/inner")
        with pytest.raises(HttpToolError):
            await tools.run(tool(server), {})
        assert server.connections == 1

    with_server(test)


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]]
)
def test_a_forbidden_address_is_never_connected_to(addresses: list[str]) -> None:
    async def test(server: Server, tools: HttpTools) -> None:
        with pytest.raises(HttpToolError, match="forbidden_address"):
            await tools.run(tool(server), {})
        assert server.connections == 0

    with_server(test, allow_private=False, addresses=addresses)


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "127.1", "017700000001", "localhost", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_no_spelling_of_loopback_passes_the_real_resolver(host: str) -> None:
    async def run() -> None:
        tools = HttpTools(resolve=resolve)
        try:
            with pytest.raises(HttpToolError) as caught:
                await tools.run(Tool("t", "http", url=f"http://{host}:9/"), {})
            assert caught.value.code in ("forbidden_address", "unavailable")
        finally:
            await tools.close()

    asyncio.run(run())


def test_a_name_is_resolved_once_so_a_second_answer_changes_nothing() -> None:
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    async def run() -> None:
        async def lookup(host: str, port: int) -> list[str]:
            return answers.pop(0)

        fake = Server()
        server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
        fake.port = server.sockets[0].getsockname()[1]
        tools = HttpTools(allow_private=True, resolve=lookup)
        await tools.run(tool(fake), {})
        await tools.close()
        server.close()
        assert fake.connections == 1
        assert len(answers) == 1

    asyncio.run(run())


def test_a_second_address_is_tried_when_the_first_does_not_answer() -> None:
    async def test(server: Server, tools: HttpTools) -> None:
        assert await tools.run(tool(server), {}) == "{}"

    with_server(test, addresses=["127.0.0.2", "127.0.0.1"])


def test_a_name_without_an_address_is_unavailable() -> None:
    assert failure_of(addresses=[]) == "unavailable"


# --- the address of a request ---


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("https://h.example/a/{x}/b", "."),
        ("https://h.example/a/{x}/b", ".."),
        ("https://h.example/a/{x}{x}/b", "."),
        ("https://h.example/a/.{x}/b", "."),
        ("https://h.example/a/{x}/b", ""),
        ("https://h.example/a/{x}/b", "../../admin"),
        ("https://h.example/a/{x}/b", "a/b"),
        ("https://h.example/a/{x}/b", "a\\b"),
        ("https://h.example/a/{x}/b", "a\r\nHost: evil"),
    ],
)
def test_a_slot_that_would_move_the_path_is_refused(template: str, value: str) -> None:
    with pytest.raises(HttpToolError, match="bad_arguments"):
        build_url(template, {"x": value})


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_value_changes_host_path_or_parameters(in_path: str, in_query: str) -> None:
    template = "https://h.example:8443/a/{x}/b?k={y}&z=1"
    try:
        url = build_url(template, {"x": in_path, "y": in_query})
    except HttpToolError:
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "h.example:8443", "")
    segments = parts.path.split("/")
    assert (segments[:2], segments[3:]) == (["", "a"], ["b"])
    assert segments[2] not in ("", ".", "..")
    first, second = parts.query.split("&")
    assert (first.partition("=")[0], second) == ("k", "z=1")
    if in_query.isprintable():
        assert unquote(first.partition("=")[2]) == in_query


# --- what is taken from an answer ---


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b", "x"),
        ("$.a.b", "x"),
        ("list.1.n", "2"),
        ("$.list[0].n", "1.5"),
        ("yes", "yes"),
        ("line", "two lines"),
    ],
)
def test_a_value_is_found_by_its_path(path: str, value: str) -> None:
    body = json.dumps({"a": {"b": "x"}, "list": [{"n": 1.5}, {"n": 2}], "yes": True, "line": "two\nlines"}).encode()
    assert extract(body, {"v": path}) == {"v": value}


@pytest.mark.parametrize("path", ["b", "a.c", "a.b.c", "list.9", "list.-1", "a", "list", "none", "a.__class__"])
def test_a_value_that_is_not_there_is_a_bad_answer(path: str) -> None:
    with pytest.raises(HttpToolError, match="bad_answer"):
        extract(b'{"a": {"b": "x"}, "list": [], "none": null}', {"v": path})


def test_a_long_value_is_cut() -> None:
    assert len(extract(json.dumps({"a": "x" * 9999}).encode(), {"v": "a"})["v"]) == 500
