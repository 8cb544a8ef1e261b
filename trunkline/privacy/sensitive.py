"""A value that cannot be shown by accident: a card's digits, a code keyed on the keypad.

Printing, formatting, logging, `json.dumps(default=str)` and tracebacks show `[card]` in its place; copying keeps it;
pickling, joining and plain JSON raise. The one way to what it holds is `reveal()`, which is easy to search for.
"""

import hmac
from typing import Any, NoReturn


class Sensitive:
    """`kind` is public: `card`, `digits`, ... Equal to another one with the same value, in constant time."""

    __slots__ = ("__reveal", "kind")

    def __init__(self, value: str, kind: str = "digits") -> None:
        self.__reveal = lambda: value  # not the value: some tools write down every attribute they find
        self.kind = kind

    def reveal(self) -> str:
        """What it holds: for whoever it is meant for, and nobody who writes anything down."""
        return self.__reveal()

    def __repr__(self) -> str:
        return f"[{self.kind}]"

    __str__ = __repr__

    def __format__(self, specification: str) -> str:
        return f"[{self.kind}]"

    def __bool__(self) -> bool:
        return bool(self.reveal())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sensitive):
            return NotImplemented
        return hmac.compare_digest(self.reveal().encode(), other.reveal().encode())

    def __hash__(self) -> int:
        return hash(self.kind)  # a hash of a short number is the number

    def __copy__(self) -> "Sensitive":
        return self

    def __deepcopy__(self, memo: Any) -> "Sensitive":
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"[{self.kind}] is not pickled: reveal() it where it is needed")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"[{self.kind}] is not pickled: reveal() it where it is needed")
