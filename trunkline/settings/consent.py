"""[consent]: how callers are asked whether their call may be kept, and the keys by which they say what they wish."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic import model_validator as after

from trunkline.settings.values import E164Text, File, Float, Section, contradiction


def _keys(value: str) -> str:
    if len(value) > 3 or set(value) - set("0123456789*#"):
        raise ValueError("up to three keys of 0-9, * and #, such as 9 or *9; empty for none")
    return value


Keys = Annotated[str, AfterValidator(_keys)]


class Consent(Section):
    """Where the rules are in force (`compliance.business`)."""

    answer_seconds: Float = Field(default=7.0, ge=2.0, le=30.0)
    """For an answer, once the question was heard. Then it is put once more; after that the caller is served without."""
    lines: File | None = None
    """A file of opening lines and questions in place of ours, by language, in the shape of
    `trunkline/compliance/lines.toml`, with a `version` of its own that the consent ledger keeps."""
    opt_out_key: Keys = ""
    """Never call again, at any time of the call. One that begins with a digit is left to the agent while it asks for
    digits: `*9` is heard then too. Without it the key is 9, of those alone who are told of it in the opening lines:
    others' keys are all the agent's."""
    opt_out_number: E164Text | None = None
    """Never call again, for who finds our call on their answering machine: said there in place of the key. For sales
    calls to the US a toll-free one that leads here (47 CFR 64.1200(b)(3)). Without it `compliance.callback_number`."""
    withdraw_key: Keys = ""
    """Keep nothing of this call, at any time of it. Empty: none."""

    @after(mode="after")
    def _apart(self) -> "Consent":
        if self.opt_out_key and self.opt_out_key == self.withdraw_key:
            raise contradiction("withdraw_key", self.withdraw_key, "is opt_out_key already")
        return self
