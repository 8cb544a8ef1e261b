"""TwiML as Twilio reads it, and the requests it signs."""

import asyncio

import httpx
import pytest
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]
from twilio.twiml.voice_response import VoiceResponse  # type: ignore[import-untyped]

from trunkline.errors import PeerError
from trunkline.testing.caller.webhook import (
    CallFields,
    Dial,
    Gather,
    Hangup,
    Pause,
    Play,
    Redirect,
    Reject,
    Say,
    Stream,
    Webhook,
    parse_twiml,
    reorigin,
)

FIELDS = CallFields("AC1", "CA1", "+15005550006", "+15005550001")


def test_what_is_said_while_keys_are_heard_is_followed() -> None:
    text = "<Response><Gather timeout='1' action='/k'><Say>Hold.</Say><Play>/m.wav</Play></Gather></Response>"
    assert parse_twiml(text) == [Gather((Say("Hold."), Play("/m.wav")), "/k", 1.0)]
    with pytest.raises(PeerError, match="neither"):
        parse_twiml("<Response><Gather><Hangup/></Gather></Response>")


def test_verbs_are_read_in_order() -> None:
    text = (
        "<Response><Say voice='x'>One <emphasis>moment</emphasis></Say><Pause length='2'/><Play>http://a/b.wav</Play>"
        "<Dial action='/d'><Number>+1</Number><Number>+2</Number></Dial><Dial>+3</Dial><Redirect>/again</Redirect>"
        "<Reject reason='busy'/><Hangup/></Response>"
    )
    assert parse_twiml(text) == [
        Say("One moment"),
        Pause(2.0),
        Play("http://a/b.wav"),
        Dial(("+1", "+2"), "/d"),
        Dial(("+3",)),
        Redirect("/again"),
        Reject("busy"),
        Hangup(),
    ]


def test_a_stream_is_read_as_twilios_own_library_writes_it() -> None:
    response = VoiceResponse()
    connect = response.connect(action="/twilio/after")
    stream = connect.stream(url="wss://h/twilio/media", name="n", status_callback="/s")
    stream.parameter(name="token", value="<&>")
    assert parse_twiml(str(response)) == [Stream("wss://h/twilio/media", {"token": "<&>"}, "n", "/s", "/twilio/after")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not XML"),
        ("<Response>", "not XML"),
        ("<Answer/>", "begins with <Answer>"),
        ("<!DOCTYPE a><Response/>", "document type"),
        ("<Response><Sing/></Response>", "<Sing> is not followed"),
        ("<Response><Connect/></Response>", "must hold one <Stream>"),
        ("<Response><Connect><Stream url='https://h/'/></Connect></Response>", "not a wss:// URL"),
        ("<Response><Connect><Stream url='wss://h/?token=1'/></Connect></Response>", "query string"),
        ("<Response><Pause length='x'/></Response>", "not a number"),
        (
            f"<Response><Connect><Stream url='wss://h/'><Parameter name='n' value='{'v' * 500}'/></Stream></Connect>"
            "</Response>",
            "longer than 500",
        ),
        ("<Response>" + " " * 65536 + "</Response>", "larger than 64 KiB"),
    ],
)
def test_twiml_that_twilio_would_refuse_is_refused(text: str, why: str) -> None:
    with pytest.raises(PeerError, match=why):
        parse_twiml(text)


def post(url: str, answer: httpx.Response | Exception, **options: str) -> tuple[str, httpx.Request]:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run() -> str:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
            return await Webhook(client, **options).post(url, FIELDS.form("ringing"))

    return asyncio.run(run()), seen[0]


def test_a_request_carries_twilios_form_and_a_signature_its_validator_accepts() -> None:
    text, request = post("http://h:1/twilio/voice", httpx.Response(200, text="<Response/>"), auth_token="secret")
    form = dict(httpx.QueryParams(request.content.decode()))
    assert text == "<Response/>"
    assert form["CallStatus"] == "ringing"
    assert form["Direction"] == "inbound"
    assert form["ApiVersion"] == "2010-04-01"
    signature = request.headers["X-Twilio-Signature"]
    assert RequestValidator("secret").validate("http://h:1/twilio/voice", form, signature)
    assert not RequestValidator("other").validate("http://h:1/twilio/voice", form, signature)


def test_a_request_can_be_signed_for_the_public_origin_and_sent_to_a_local_one() -> None:
    _, request = post(
        "https://public.example/twilio/after",
        httpx.Response(200),
        auth_token="secret",
        signed_origin="https://public.example",
        via_origin="http://127.0.0.1:8080",
    )
    form = dict(httpx.QueryParams(request.content.decode()))
    assert str(request.url) == "http://127.0.0.1:8080/twilio/after"
    validator = RequestValidator("secret")
    assert validator.validate("https://public.example/twilio/after", form, request.headers["X-Twilio-Signature"])


def test_without_a_token_nothing_is_signed() -> None:
    _, request = post("http://h/", httpx.Response(200))
    assert "X-Twilio-Signature" not in request.headers


@pytest.mark.parametrize(
    "answer", [httpx.Response(503, text="busy"), httpx.ConnectError("refused"), httpx.ReadTimeout("slow")]
)
def test_a_server_that_does_not_answer_well_is_the_peers_error(answer: httpx.Response | Exception) -> None:
    with pytest.raises(PeerError):
        post("http://h/", answer)


def test_another_origin_keeps_a_websocket_url_one() -> None:
    assert reorigin("wss://public/twilio/media", "http://127.0.0.1:1") == "ws://127.0.0.1:1/twilio/media"
    assert reorigin("https://public/a?b=c", "http://127.0.0.1:1") == "http://127.0.0.1:1/a?b=c"
