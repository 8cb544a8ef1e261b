"""[consent]: how callers are asked whether their call may be kept."""

from typing import Annotated

from pydantic import AfterValidator, Field

from trunkline.settings.values import File, Float, Section


def _key(value: str) -> str:
    if value and (len(value) > 1 or value not in "0123456789*#"):
        raise ValueError("one key: 0-9, *, #, or empty for none")
    return value


Key = Annotated[str, AfterValidator(_key)]


class Consent(Section):
    answer_seconds: Float = Field(default=7.0, ge=2.0, le=30.0)
    """For an answer, once the question was heard. Then it is put once more; after that the caller is served without."""
    lines: File | None = None
    """A file of opening lines and questions in place of ours, by language, in the shape of
    `trunkline/compliance/lines.toml`, with a `version` of its own that the consent ledger keeps."""
    withdraw_key: Key = ""
    """At any time after the opening this key withdraws: nothing of the call is kept from then on. Empty: none, since an
    agent would never see that digit."""
