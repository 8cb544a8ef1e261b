"""The reference is as the code is."""

import re
import tomllib
from pathlib import Path

from trunkline.agents.script import check_text
from trunkline.agents.script.reference import TABLES, with_tables

FOLDER = Path(__file__).parents[2] / "docs"
DOCS = FOLDER / "agent-script.md"


def test_the_tables_of_the_reference_are_those_of_the_keys() -> None:
    found: set[str] = set()
    for name in ("agent-script.md", "models.md"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert with_tables(text) == text, f"run: python -m trunkline.agents.script.reference docs/{name}"
        found |= set(re.findall(r"<!-- keys: (\w+) -->", text))
    assert found == set(TABLES)


def test_the_smallest_agent_of_the_reference_has_no_mistake() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        tomllib.loads(block)
    assert not [problem for problem in check_text(blocks[0]) if problem.severity == "error"]
