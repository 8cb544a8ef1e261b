"""[audit]: the log of turns that shows later what agents were asked to do and did."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from trunkline.settings.values import Float, Int, Section


class Audit(Section):
    folder: Path | None = None
    """Where a sample of the turns, and every refusal, is written to as Parquet (the extra `audit`). Without it nothing
    is. Of several gateways that share it each writes to a folder of its own there, by its `worker`."""
    sample_percent: Float = Field(default=1.0, ge=0, le=100)
    """Of turns. Which, is told by their ids; those within which something was refused are there as well."""
    batch_seconds: Float = Field(default=60.0, ge=1, le=3600)
    """How long rows wait to be written together: what a kill -9 loses."""
    transcripts: bool = True
    """Whether rows hold what was said: redacted, and empty where the caller has not agreed to a transcript."""
    days: Annotated[Int, Field(ge=1, le=36_500)] | None = None
    """Rows are deleted by then; and no later than privacy.calls_days deletes their calls, and, where they hold what was
    said, privacy.transcripts_days the words."""
