"""What a provider's invoice calls what it was used for."""

from typing import Any

from trunkline.ports import HERE


def product_of(provider: Any) -> str:
    """Its model, where it tells; HERE for one on this machine."""
    if not getattr(provider, "third_party", True):
        return HERE
    return str(getattr(provider, "product", ""))
