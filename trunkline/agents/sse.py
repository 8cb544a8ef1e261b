"""Server-sent events (WHATWG HTML, 9.2.6), as streamed answers come: bytes in, the data of each event out.

Names, ids and comments are nobody's here: the events we read say in their data what they are.
"""

MAX_EVENT_BYTES = 4 * 1024 * 1024


class Events:
    def __init__(self) -> None:
        self._line = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that are whole now. Raises ValueError for one that is beyond all measure."""
        found: list[bytes] = []
        *lines, self._line = (self._line + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._size += len(line)
            elif not line and self._data:
                found.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        if self._size + len(self._line) > MAX_EVENT_BYTES:
            raise ValueError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return found
