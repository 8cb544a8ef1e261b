"""The agent script: a TOML file an admin can read and write. Its reference is docs/agent-script.md."""

from trunkline.agents.script.check import Problem, check_text, load, mistakes
from trunkline.agents.script.family import check, load_family, prefixes

__all__ = ["Problem", "check", "check_text", "load", "load_family", "mistakes", "prefixes"]
