import json

from trunkline.testing.caller.carrier import Carrier, StreamIds
from trunkline.testing.caller.line import Line
from trunkline.testing.caller.records import merge
from trunkline.testing.caller.report import CallReport, to_json
from trunkline.testing.caller.script import Keys, Listen
from trunkline.testing.caller.speech import PlainMouth
from trunkline.types import CallSid, StreamSid


def line() -> Line:
    carrier = Carrier(StreamIds("AC1", CallSid("CA1"), StreamSid("MZ1")), {})
    made = Line(carrier, [Keys("5"), Listen()], PlainMouth())
    made.open(10.0)
    made.receive("{", 10.0)
    made.tick(10.02)
    media = {"event": "media", "streamSid": "MZ1", "media": {"payload": "EBAQEA=="}}
    made.receive(json.dumps(media), 10.12)
    return made


def test_a_call_of_two_streams_is_one_report() -> None:
    report = CallReport("CA1", end="hung_up")
    report.add_line(line())
    report.add_line(line())
    assert [t.index for t in report.turns] == [0, 1]
    assert [a.index for a in report.answers] == [0, 1]
    assert report.counts["invalid"] == {"not a message": 2}
    assert report.counts["media_in"] == 2
    assert report.ok


def test_a_report_is_json_with_its_totals() -> None:
    report = CallReport("CA1", end="no_answer")
    report.add_line(line())
    values = json.loads(to_json(report))
    assert values["turns"][0]["latency_ms"] == 100.0
    assert (values["gaps"], values["gap_ms"], values["ok"]) == (0, 0, False)


def test_the_record_puts_words_beside_what_the_caller_did() -> None:
    report = CallReport("CA1")
    report.add_line(line())
    report.add_line(line())
    turns = [
        {"caller_text": "", "agent_text": "Hello."},
        {"caller_text": "five", "agent_text": "Five it is.", "keyed": True},
        {"caller_text": "", "agent_text": "Pardon?", "understood": False},
    ]
    merge(report, {"turns": turns})
    assert report.greeting == "Hello."
    assert [(t.understood, t.answered) for t in report.turns] == [
        ("five", "Five it is."),
        ("(not understood)", "Pardon?"),
    ]


def test_a_record_of_another_shape_changes_nothing() -> None:
    report = CallReport("CA1")
    report.add_line(line())
    merge(report, {"turns": "none"})
    assert report.turns[0].understood is None
