"""The detector's half in its worker: whose samples its hits are in."""

from trunkline.agents.local.wire import Message
from trunkline.device.listening import Detector
from trunkline.device.wakeword import Hit


class Loud:
    """Hits at a frame that is not silent, 10 samples before its end."""

    phrase = "loud"

    def __init__(self, phrase: str, threshold: float) -> None:
        self._pushed = 0

    def push(self, pcm16: bytes) -> Hit | None:
        self._pushed += len(pcm16) // 2
        return Hit(self._pushed - 10, 0.5) if any(pcm16) else None


def begun(name: str) -> tuple[Detector, list[Message]]:
    detector = Detector()
    fields = {"detector": name, "phrase": "hey", "threshold": 0.5}
    return detector, list(detector.handle(Message("begin", fields)))


def test_a_hit_is_where_the_device_heard_it_whatever_was_not_listened_to() -> None:
    detector, answer = begun(f"{__name__}:Loud")
    assert answer == [Message("ready")]
    assert list(detector.handle(Message("hear", {"ends_at": 320}, bytes(640)))) == []
    hits = list(detector.handle(Message("hear", {"ends_at": 9000}, b"\1" * 640)))
    assert hits == [Message("hit", {"phrase": "loud", "ends_at": 8990, "score": 0.5})]


def test_a_detector_that_is_not_there_is_refused_by_name() -> None:
    _, (answer,) = begun("nobody.at.all:Loud")
    assert answer.name == "refused"
    assert answer.fields["config"][:2] == ["detector", "nobody.at.all:Loud"]
