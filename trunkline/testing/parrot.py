"""A job kind for tests of the speech pool: says back what it is told, or misbehaves when told so."""

import os
import signal
import time
from collections.abc import Iterable

from trunkline.agents.local.wire import Message


class Parrot:
    def __init__(self) -> None:
        self._learnt = ""

    def preload(self, message: Message) -> Iterable[Message]:
        if message.name == "refuse":
            raise ValueError("no such word")
        for _ in range(message.fields.get("steps", 0)):
            yield Message("")
        self._learnt = message.fields.get("word", "")
        yield Message("")

    def unload(self, message: Message) -> None:
        self._learnt = ""

    def open(self) -> "Beak":
        return Beak(self._learnt)


class Beak:
    """`say` -> said; `count` n -> n numbers; `die` -> the process ends; `raise` -> an exception; `hang` -> stops;
    `toil` s -> said, after so many seconds in short turns."""

    def __init__(self, learnt: str) -> None:
        self._learnt = learnt

    def handle(self, message: Message) -> Iterable[Message]:
        if message.name == "say":
            yield Message("said", {**message.fields, "learnt": self._learnt, "pid": os.getpid()}, message.data)
        elif message.name == "count":
            yield from (Message("number", {"n": n}) for n in range(message.fields["to"]))
        elif message.name == "toil":
            for _ in range(int(message.fields["s"] * 100)):
                time.sleep(0.01)
                yield Message("")
            yield Message("said")
        elif message.name == "raise":
            raise ValueError("told to")
        elif message.name == "die":
            os._exit(3)
        elif message.name == "hang":
            os.kill(os.getpid(), signal.SIGSTOP)

    def close(self) -> None:
        pass
