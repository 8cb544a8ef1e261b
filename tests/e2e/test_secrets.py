"""Cards in real calls, and then a search of everything that a gateway wrote, sent and sounded.

Keyed: over SIP as RFC 4733, as INFO, and as tones in the audio, to a script and to a realtime model. Said: in words, in
pairs, in pieces over turns, over partials of the recogniser and deltas of the model, and read back by the agent.
"""

import asyncio
import contextlib
import gzip
import importlib.util
import json
import re
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.backends import spoken_mulaw as spoken
from tests.e2e.searching import everything, keys_in, lanes, places_of
from tests.fakes.deepgram_server import DeepgramServer
from tests.fakes.openai_realtime_server import OpenAiRealtimeServer, Reply
from tests.fakes.openai_realtime_server import Tool as Used
from tests.fakes.openai_server import Answer, Call, OpenAiServer
from trunkline.agents.examples import example
from trunkline.media import g711
from trunkline.media.dtmf import tones
from trunkline.testing.caller.commands import (
    Action,
    CallOptions,
    CallReport,
    HangUp,
    Keys,
    Listen,
    Pause,
    Say,
    SipOptions,
    Speak,
    place_call,
)
from trunkline.testing.caller.speech import to_speech
from trunkline.testing.ports import lease
from trunkline.types import MULAW_8K

pytestmark = pytest.mark.e2e

needs_sip = pytest.mark.skipif(importlib.util.find_spec("pjsua2") is None, reason="pjsua2 is not installed: make pjsip")

Start = Callable[..., Any]  # conftest.start_gateway

KEYED = "5105105105105100"
OPENLY = "4711"
"""Keyed as an answer, in the same call: what is not masked is found by the same search."""
CALLER = "+15005550177"
PAY = """
[tools.pay]
type = "http"
method = "POST"
url = "{url}"
body = {{ card = "{{card_number}}" }}
secure = {{ card_number = "13-19" }}
prompt = "Please key in your card number, and then the pound key."
"""
BY_KEY = """
[[intents]]
name = "pay"
phrases = ["pay my bill [please]"]
key = "8"
tool = "pay"
reply = "Your payment went through."
"""
MODEL = """
name = "Shop"
greeting = "Corner shop, hello."

[realtime]
provider = "openai"
base_url = "{realtime}"
model = "fake"
instructions = "You take payments."
turns = "{turns}"

[stt]
provider = "deepgram"
url = "{stt}"
model = "nova-3"

[llm]
provider = "openai"
base_url = "{chat}"
model = "fake"

[tts]
provider = "espeak"
"""


@contextlib.asynccontextmanager
async def bank() -> AsyncGenerator[tuple[str, list[Any]]]:
    """Who the tool pays: its address, and what it was sent. It says the card back, as careless services do."""
    asked: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head)[1]))  # type: ignore[index]
        asked.append(json.loads(body))
        said = json.dumps({"ok": True, "card": asked[-1]["card"]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/pay", asked


@dataclass
class Collector:
    """Of OTLP: what came, as it came, until the gateway has ended."""

    url: str
    came: list[str]


@pytest.fixture
def collector() -> Iterator[Collector]:
    came: list[str] = []

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            came.append((gzip.decompress(data) if packed else data).decode("latin-1"))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Takes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Collector(f"http://127.0.0.1:{server.server_port}", came)
    server.shutdown()
    server.server_close()


def all_on(folder: Path, traces: str) -> dict[str, str]:
    """Everything that writes does."""
    return {
        "record": "true",
        "log__level": "debug",
        "audit__folder": str(folder / "audit"),
        "audit__sample_percent": "100",
        "audit__batch_seconds": "1",
        "otel__endpoint": traces,
        "tools__allow_private_addresses": "true",
    }


def over_sip(way: str) -> tuple[dict[str, str], str]:
    """Settings, and who is called."""
    port = lease()
    more = {"sip__port": str(port), "sip__enabled": "true"}
    if way == "inband":
        more |= {
            "sip__trunks__old__peers": "127.0.0.1/32",
            "sip__trunks__old__dtmf_in": "inband",
            "sip__trunks__old__ping_s": "0",
        }
    return more, f"sip:+15005550001@127.0.0.1:{port}"


def keyed(way: str, digits: str) -> Action:
    if way != "inband":
        return Keys(digits)
    pcm = np.frombuffer(g711.decode(tones(digits, MULAW_8K), "mulaw"), "<i2")
    return Speak(to_speech("tones", pcm.astype(np.float32) / np.float32(32768)))


def options(target: str, origin: str, way: str, actions: Sequence[Action]) -> CallOptions:
    sip = SipOptions(dtmf="info" if way == "info" else "rfc4733")
    return CallOptions(target, actions, api_url=origin, from_number=CALLER, noise_dbfs=-60.0, sip=sip)


def entries(record: Any) -> list[str]:
    return [event["data"]["what"] for event in record["events"] if event["kind"] == "secure_entry"]


def recording(gateway: Any) -> Path:
    (path,) = (gateway.data_dir / "recordings").glob("*.wav")
    return Path(path)


def left_of(
    folder: Path, gateway: Any, collector: Collector, wanted: Sequence[str], *texts: str
) -> list[tuple[str, str, str]]:
    """After its end, so that all is written."""
    gateway.signal()
    gateway.wait()
    there = everything(gateway.data_dir, gateway.log, *collector.came, *texts)
    assert "turn" in "".join(collector.came), "traces were on"
    if (folder / "audit").exists():
        there |= everything(folder / "audit")
    assert any("audit" in place and "rows" in place for place in there), "the audit log was on"
    assert any(".db" in place and "rows" in place for place in there), sorted(there)
    return places_of(wanted, there)


@needs_sip
@pytest.mark.parametrize("way", [*(pytest.param(way, marks=pytest.mark.show) for way in ("rfc4733", "info")), "inband"])
def test_a_card_keyed_over_sip_goes_to_its_tool_and_nowhere_else(
    start_gateway: Start, tmp_path: Path, collector: Collector, way: str
) -> None:
    async def call() -> tuple[CallReport, list[Any], Any]:
        async with bank() as (url, asked):
            agent = tmp_path / "paying.toml"
            agent.write_text(example("clinic").read_text(encoding="utf-8") + BY_KEY + PAY.format(url=url))
            sip, target = over_sip(way)
            gateway = await asyncio.to_thread(start_gateway, agent, **all_on(tmp_path, collector.url), **sip)
            actions = [
                Listen(), keyed(way, "2"), Listen(), keyed(way, OPENLY), Listen(),
                keyed(way, "8"), Pause(6000), keyed(way, f"{KEYED}#"), Listen(), HangUp(),
            ]  # fmt: skip
            async with asyncio.timeout(120):
                report = await place_call(options(target, gateway.origin, way, actions))
            return report, asked, gateway

    report, asked, gateway = asyncio.run(call())
    assert report.record is not None, gateway.log
    turns = [(turn["caller_text"], turn["agent_text"]) for turn in report.record["turns"]]
    assert asked == [{"card": KEYED}], turns
    assert entries(report.record) == ["begun", "ended"]
    assert OPENLY in [said for said, _ in turns]
    assert "[card_number]" not in str(turns)
    caller, agent_lane = lanes(recording(gateway))
    assert keys_in(caller) == (f"2{OPENLY}8" if way == "inband" else "")
    assert keys_in(agent_lane) == ""
    wanted = [KEYED, KEYED[:6], KEYED[4:12], " ".join(KEYED[:6])]
    assert left_of(tmp_path, gateway, collector, wanted, json.dumps(report.record)) == []
    assert gateway.complaints() == []


@needs_sip
@pytest.mark.parametrize(
    ("way", "turns"),
    [
        pytest.param("inband", "server", marks=pytest.mark.show),
        ("inband", "ours"),
        pytest.param("rfc4733", "ours", marks=pytest.mark.show),
    ],
)
def test_a_card_keyed_to_a_realtime_model_is_silence_to_it(
    start_gateway: Start, tmp_path: Path, collector: Collector, way: str, turns: str
) -> None:
    async def call() -> tuple[CallReport, list[Any], Any, Any, list[str]]:
        model, chat = OpenAiRealtimeServer(), OpenAiServer()
        model.line = Reply(
            "Please key in your card number, and then the pound key.", spoken("Please key in your card.")
        )
        model.transcripts += ["I want to pay", "thank you"]
        goodbye = spoken("It is paid. Anything else?")
        chat.answers += [Answer("Hm.")] * 20  # should the model be given up
        model.replies += [
            Reply("", b"", (Used("pay"),), first_s=0.2),
            *[Reply("It is paid. Anything else?", goodbye, first_s=0.2)] * 9,  # each key of OPENLY is a turn
        ]
        async with bank() as (url, asked), model, chat, DeepgramServer("hello") as ears:
            agent = tmp_path / "shop.toml"
            text = MODEL.format(realtime=model.base_url, chat=chat.base_url, stt=ears.url, turns=turns)
            agent.write_text(text + PAY.format(url=url))
            sip, target = over_sip(way)
            keys = {"openai__api_key": "sk-the-shop-s-own-key", "deepgram__api_key": "dg-the-shop-s-own-key"}
            gateway = await asyncio.to_thread(start_gateway, agent, **all_on(tmp_path, collector.url), **sip, **keys)
            actions: list[Action] = [
                Listen(), Say("I want to pay my bill now please"), Pause(6000),
                keyed(way, f"{KEYED}#"), Listen(), Pause(2000), keyed(way, OPENLY), Pause(2000), HangUp(),
            ]  # fmt: skip
            async with asyncio.timeout(120):
                report = await place_call(options(target, gateway.origin, way, actions))
            log = [str(session.events) + str(session.items) for session in model.sessions]
            return report, asked, gateway, model, log

    report, asked, gateway, model, told = asyncio.run(call())
    assert report.record is not None, gateway.log
    said = [(turn["caller_text"], turn["agent_text"]) for turn in report.record["turns"]]
    assert asked == [{"card": KEYED}], (said, told)
    assert entries(report.record) == ["begun", "ended"]
    assert "card_number" in "".join(told), "its tool's answer, with the number replaced"
    heard = "".join(keys_in(bytes(session.heard)) for session in model.sessions)
    if turns == "server":
        assert heard == (OPENLY if way == "inband" else ""), "it hears the whole line but for the entry"
    else:
        assert set(heard) <= set(OPENLY), "our ears give it speech"
    caller, _ = lanes(recording(gateway))
    assert keys_in(caller) == (OPENLY if way == "inband" else "")
    wanted = [KEYED, KEYED[:6], KEYED[4:12]]
    assert left_of(tmp_path, gateway, collector, wanted, json.dumps(report.record), *told) == []
    assert [code for session in model.sessions for code in session.refused] == []


SAID = (
    "my card is four one one one one one one one one one one one one one one one thanks",
    "the other is forty two forty two forty two forty two forty two forty two forty two forty two",
    "and the third five five zero zero zero zero zero zero",
    "zero zero zero zero zero zero zero four",
    "I want to pay now",
)
CARDS = ("4111111111111111", "4242424242424242", "5500000000000004")
TRACES_OF_THEM = (
    *(card[:6] for card in (*CARDS, KEYED)),
    "one one one one one",
    "forty two forty two",
    "zero zero zero",
    "4242 4242",
    "0000 0004",
    "1111 1111",
)


def test_cards_said_read_back_and_keyed_are_nowhere(start_gateway: Start, tmp_path: Path, collector: Collector) -> None:
    async def call() -> tuple[CallReport, list[Any], Any, str, str]:
        chat = OpenAiServer()
        chat.answers += [
            Answer("I have four", " one one one", " one one one one", " one one one one", " one one one one. Right?"),
            Answer("That is 42", "42 4", "242 4242 42", "42, is it?"),
            Answer("Go on."),
            Answer("Then it is 5500 0000", " 0000 0004, or five five zero zero zero zero", " zero zero and so on."),
            Answer(Call("pay", "{}"), finish="tool_calls"),
            Answer("It is paid."),
            *[Answer("Anything else?")] * 5,
        ]
        async with bank() as (url, asked), chat, DeepgramServer(*SAID) as ears:
            agent = tmp_path / "shop.toml"
            text = MODEL.format(realtime="", chat=chat.base_url, stt=ears.url, turns="ours")
            text = re.sub(r"(?s)\[realtime\].*?\n\n", "", text).replace("[llm]", "[llm]\nthird_party = true")
            agent.write_text(text + PAY.format(url=url))
            gateway = await asyncio.to_thread(
                start_gateway,
                agent,
                **all_on(tmp_path, collector.url),
                openai__api_key="sk-the-shop-s-own-key",
                deepgram__api_key="dg-the-shop-s-own-key",
                privacy__redact_for_models="card",
                log__format="json",
            )
            spoken_to_it = [Say(" ".join(["bread"] * len(line.split()))) for line in SAID]
            actions: list[Action] = [Listen()]
            for line in spoken_to_it[:-1]:
                actions += [line, Listen()]
            actions += [spoken_to_it[-1], Pause(7000), Keys(f"{KEYED}#"), Listen(), HangUp()]
            async with asyncio.timeout(180):
                report = await place_call(options(gateway.origin, gateway.origin, "twilio", actions))
            metrics = await asyncio.to_thread(_metrics, gateway.origin)
            return report, asked, gateway, json.dumps([r.body for r in chat.requests]), metrics

    report, asked, gateway, told, metrics = asyncio.run(call())
    assert report.record is not None, gateway.log
    turns = [(turn["caller_text"], turn["agent_text"]) for turn in report.record["turns"]]
    assert asked == [{"card": KEYED}], turns
    assert str(turns).count("[card]") >= 5, turns
    assert "[digits]" in turns[3][0], turns
    caller, _ = lanes(recording(gateway))
    assert keys_in(caller) == ""
    wanted = [*TRACES_OF_THEM, *CARDS, KEYED]
    assert left_of(tmp_path, gateway, collector, wanted, json.dumps(report.record), told, metrics) == []
    assert gateway.complaints() == []


def _metrics(origin: str) -> str:
    import httpx

    return httpx.get(f"{origin}/metrics", timeout=5.0).text


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """Tones at every length that callers key, and rows and files of every kind."""
    for digits in (KEYED, "0123456789*#", OPENLY):
        assert keys_in(MULAW_8K.silence * 800 + tones(digits, MULAW_8K) + MULAW_8K.silence * 800) == digits
    assert keys_in(spoken("Please key in your card number, and then the pound key.")) == ""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.log").write_text(f"card {KEYED}")
    assert [place for place, _, _ in places_of([KEYED], everything(tmp_path))] == [str(tmp_path / "deep" / "a.log")]
