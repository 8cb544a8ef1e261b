"""[consent]: the keys by which callers say what they wish."""

from typing import Annotated

from pydantic import AfterValidator
from pydantic import model_validator as after

from trunkline.settings.values import Section, contradiction


def _keys(value: str) -> str:
    if len(value) > 3 or set(value) - set("0123456789*#"):
        raise ValueError("up to three keys of 0-9, * and #, such as 9 or *9; empty for none")
    return value


Keys = Annotated[str, AfterValidator(_keys)]


class Consent(Section):
    """Where the rules are in force (`compliance.business`)."""

    opt_out_key: Keys = ""
    """Never call again, at any time of the call. One that begins with a digit is left to the agent while it asks for
    digits: `*9` is heard then too. Without it the key is 9, during the opening lines alone: all others are the
    agent's."""
    withdraw_key: Keys = ""
    """Keep nothing of this call, at any time of it. Empty: none."""

    @after(mode="after")
    def _apart(self) -> "Consent":
        if self.opt_out_key and self.opt_out_key == self.withdraw_key:
            raise contradiction("withdraw_key", self.withdraw_key, "is opt_out_key already")
        return self
