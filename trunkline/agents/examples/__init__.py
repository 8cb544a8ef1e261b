"""Agents that ship with Trunkline."""

from importlib.resources import files
from pathlib import Path


def example(name: str) -> Path:
    """The file of an example agent, such as `clinic`."""
    return Path(str(files(__name__) / f"{name}.toml"))
