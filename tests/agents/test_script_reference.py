"""The reference is as the code is."""

import re
import tomllib
from pathlib import Path

import pytest

from trunkline.agents.script import check_text
from trunkline.agents.script.keys import Keys
from trunkline.agents.script.reference import MODELS, TABLES, with_tables

DOCS = Path(__file__).parents[2] / "docs" / "agent-script.md"


@pytest.mark.parametrize(("name", "tables"), [("agent-script.md", TABLES), ("models.md", MODELS)])
def test_the_tables_of_the_reference_are_those_of_the_keys(name: str, tables: dict[str, Keys]) -> None:
    text = DOCS.with_name(name).read_text(encoding="utf-8")
    assert with_tables(text) == text, f"run: python -m trunkline.agents.script.reference docs/{name}"
    assert set(re.findall(r"<!-- keys: (\w+) -->", text)) == set(tables)


def test_the_smallest_agent_of_the_reference_has_no_mistake() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        tomllib.loads(block)
    assert not [problem for problem in check_text(blocks[0]) if problem.severity == "error"]
