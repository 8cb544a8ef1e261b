"""An agent's file and those of the agents it may hand calls to, and they in turn: each is read once, in any circle."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from trunkline.agents.definition import AgentDefinition
from trunkline.agents.script.check import Problem, load, read_file
from trunkline.errors import ConfigError

MAX_AGENTS = 50  # of one gateway: each holds providers of its own


def load_family(path: Path | str) -> dict[str, AgentDefinition]:
    """By their absolute files, as HandOff.file names them; the file itself first. Raises ConfigError naming the file,
    the line and the key of the first error."""
    found: dict[str, AgentDefinition] = {}
    waiting = [str(Path(path).resolve())]
    while waiting:
        file = waiting.pop(0)
        if file in found:
            continue
        if len(found) == MAX_AGENTS:
            raise ConfigError("agent", Path(file).name, f"at most {MAX_AGENTS} agents in one gateway")
        found[file] = load(file)
        waiting += [terms.file for terms in found[file].agents.values()]
    return found


def prefixes(files: Iterable[str]) -> list[str]:
    """What tells the providers of one agent from those of another, such as `billing/`: nothing for the first."""
    found: list[str] = []
    for file in files:
        prefix, count = f"{Path(file).stem}/" if found else "", 1
        while prefix in found:
            count += 1
            prefix = f"{Path(file).stem}-{count}/"
        found.append(prefix)
    return found


def check(path: Path | str) -> list[Problem]:
    """Everything wrong with the file, in its order, and with those it leads to."""
    first = Path(path).resolve()
    return [
        problem if file == first else replace(problem, file=str(file))
        for file, problems in _look(first)
        for problem in problems
    ]


def _look(first: Path) -> Iterator[tuple[Path, list[Problem]]]:
    seen, waiting = set[Path](), [first]
    while waiting and len(seen) < MAX_AGENTS:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        definition, problems = read_file(file)
        yield file, problems
        if definition is not None:
            waiting += [Path(terms.file) for terms in definition.agents.values()]
