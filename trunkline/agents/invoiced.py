"""What a provider's invoice calls what it was used for."""

from typing import Any

from trunkline.ports import HERE, UsageUnit


def product_of(provider: Any) -> str:
    """Its model, where it tells; HERE for one on this machine."""
    if not getattr(provider, "third_party", True):
        return HERE
    return str(getattr(provider, "product", ""))


def billed_in(voice: Any) -> UsageUnit:
    """`characters` that it was asked for, or `seconds` of audio that came of them."""
    unit: UsageUnit = getattr(voice, "billed_in", "characters")
    return unit
