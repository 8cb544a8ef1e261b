"""The environment, of which this file is the only reader, beside pydantic-settings."""

import os

ENV_PREFIX = "TRUNKLINE_"


def variable(key: str) -> str:
    """`http.port`: TRUNKLINE_HTTP__PORT."""
    return ENV_PREFIX + key.upper().replace(".", "__")


def set_variables() -> list[str]:
    """Ours that are set, in whatever case; empty ones count as unset."""
    return sorted(name for name, value in os.environ.items() if name.upper().startswith(ENV_PREFIX) and value)


def keep_mathematics_single_threaded() -> None:
    """Before numpy is imported: OpenBLAS would start a thread a core for a matrix of twelve rows, and let them spin."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
