"""The agent script: a TOML file an admin can read and write. Its reference is docs/agent-script.md."""

from trunkline.agents.script.check import Problem, check, check_text, load

__all__ = ["Problem", "check", "check_text", "load"]
