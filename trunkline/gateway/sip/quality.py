"""How good a call sounded: from packet counts to jitter, loss and an estimated MOS."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MediaReport:
    """One stream's packets. `in_` is what came to us, `out_` what the far end said of ours (RTCP); None: it never did."""

    codec: str
    srtp: bool = False
    in_packets: int = 0
    in_lost: int = 0
    in_discarded: int = 0
    """Came too late for the jitter buffer."""
    in_jitter_ms: float = 0.0
    out_packets: int = 0
    out_lost: int | None = None
    out_jitter_ms: float | None = None
    rtt_ms: float | None = None
    buffer_ms: float = 0.0
    """The jitter buffer's mean delay."""
