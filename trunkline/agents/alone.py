"""An agent with nobody but this machine: who serves a caller that does not agree to third parties.

It is the same agent, with what of it is here: its name, its lines, its targets, its tools, and of its providers those
that are no third party, in their order. What is missing then is this machine's own: PocketSphinx hears English, and
elsewhere the keypad is all there is; espeak-ng speaks. The mind, in each language, is

1. the file's script, where it has one that can be followed: its words are heard, or it has keys;
2. a model that is no third party, where somebody here writes down whatever is said;
3. else a menu of our own (`alone.toml`): a person (the first target), or to be called back.

With ears that write everything down, a model of the file keeps its rank before the script.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from trunkline.agents.definition import NO_DETECTOR, AgentDefinition, ProviderChoice
from trunkline.agents.languages import primary
from trunkline.agents.providers import LIFEBOAT, Kind, Minds, Services, free_text, load
from trunkline.agents.script.model import Script
from trunkline.errors import ConfigError, MissingExtra

ENGLISH = "en-US"
PERSON, CALL_BACK = "person", "call_back"


@dataclass(frozen=True, slots=True)
class Alone:
    """Not yet started. `own`: the providers among the minds that nobody else starts and closes."""

    definition: AgentDefinition
    minds: Minds
    own: tuple[Any, ...]
    menus: frozenset[str]
    """The languages in which it has nothing to offer but the menu."""


def build_alone(definition: AgentDefinition, minds: Minds, services: Services) -> Alone:
    """`minds`: of the agent itself. Raises ConfigError and MissingExtra naming what this machine lacks."""
    parts = {tag: _Part(tag, definition.in_language(tag), minds.in_language(tag), services) for tag in definition.tags}
    menus = frozenset(tag for tag, part in parts.items() if part.is_menu)
    first, *others = parts.values()
    whole = replace(
        first.definition,
        languages={part.tag: part.definition for part in others},
        realtime=None,
        turn_detector=ProviderChoice(NO_DETECTOR),
    )
    scripts: list[Any] = []
    if any(part.scripted for part in parts.values()):
        scripts.append(load("llm", ProviderChoice(LIFEBOAT["llm"]))(whole, {}, services))
    detector = minds.detector if minds.detector is not None and not minds.detector.third_party else None
    made = {tag: part.minds(scripts) for tag, part in parts.items()}
    all_minds = replace(
        made[definition.language],
        health=minds.health,
        languages={tag: replace(made[tag], health=minds.health) for tag in definition.languages},
        detector=detector,
    )
    own = [provider for part in parts.values() for provider in part.own] + scripts
    return Alone(whole, all_minds, tuple(own), menus)


class _Part:
    """In one language."""

    def __init__(self, tag: str, definition: AgentDefinition, minds: Minds, services: Services) -> None:
        self.tag, self._services = tag, services
        self.own: list[Any] = []
        self._kept: dict[Kind, list[Any]] = {
            kind: [each for each in minds.named(kind).values() if not each.third_party]
            for kind in ("stt", "llm", "tts")
        }
        self._models = [each for each in self._kept["llm"] if each.name != LIFEBOAT["llm"]]
        self._english = primary(tag) == "en"
        writes_all = any(map(free_text, self._kept["stt"]))
        self._script_first = not writes_all or self._kept["llm"][:1] != self._models[:1] or not self._models
        by_script = bool(definition.script.get("intents")) and (
            writes_all or self._english or _has_keys(Script.of(definition))
        )
        self.is_menu = not by_script and not (writes_all and self._models)
        self.scripted = by_script or self.is_menu
        failover = definition.failover
        if failover.last_resort == "message":  # nothing would be kept of it
            failover = replace(failover, last_resort="hang_up")
        # No conversation of this call is summed up by others.
        self.definition = replace(definition, failover=failover, spares={}, languages={})
        if self.is_menu:
            self._make_menu()
        if self.is_menu or not self._kept["stt"]:
            self._find_ears(writes_all)
        if not self._kept["tts"]:
            self._find_voice()

    def minds(self, scripts: Sequence[Any]) -> Minds:
        models = [*scripts, *self._models] if self._script_first else [*self._models, *scripts]
        ranked: dict[Kind, Sequence[Any]] = {
            "stt": self._kept["stt"],
            "llm": (models if self.scripted else self._models) if not self.is_menu else scripts,
            "tts": self._kept["tts"],
        }
        spares: dict[Kind, tuple[Any, ...]] = {kind: tuple(each[1:]) for kind, each in ranked.items()}
        return Minds(ranked["stt"][0], ranked["llm"][0], ranked["tts"][0], spares)

    def _make_menu(self) -> None:
        definition = self.definition
        known = primary(self.tag) in menus()
        words = menus()[primary(self.tag) if known else "en"]
        if not known:  # spoken and heard in English then
            self._kept["tts"], self._english = [], True
        target = next(iter(definition.targets), None)
        offers = " ".join(
            (*([words["person"].format(target=target.replace("_", " "))] if target else ()), words["call_back"])
        )
        self.definition = replace(
            definition,
            greeting=f"{words['intro']} {offers}",
            no_input=(offers,),
            filler=(),
            language=self.tag,
            script=_menu(words, offers, target),
        )

    def _find_ears(self, writes_all: bool) -> None:
        """Who writes everything down hears the menu's words as well; else PocketSphinx, with its grammar."""
        if self.is_menu:
            self._kept["stt"] = [each for each in self._kept["stt"] if free_text(each)]
        if self._kept["stt"]:
            return
        spoken = self.definition
        if not self._english:  # its words are not known to PocketSphinx: then the keys are all there is
            spoken = replace(spoken, script={"intents": [{"name": "keys"}]})
        self._kept["stt"] = [self._made("stt", spoken)]

    def _find_voice(self) -> None:
        known = primary(self.tag) in menus() or not self.is_menu
        spoken = self.definition if known else replace(self.definition, language=ENGLISH)
        voice = load("tts", ProviderChoice(LIFEBOAT["tts"]))
        in_language = getattr(voice, "in_language", None)
        if in_language is not None and in_language({}, spoken.language) is None:
            raise ConfigError("tts.provider", LIFEBOAT["tts"], f"does not speak {spoken.language}")
        self._kept["tts"] = [self._made("tts", spoken)]

    def _made(self, kind: Kind, definition: AgentDefinition) -> Any:
        provider = load(kind, ProviderChoice(LIFEBOAT[kind]))(definition, {}, self._services)
        self.own.append(provider)
        return provider


def _has_keys(script: Script) -> bool:
    return any(intent.key is not None for intent in script.intents)


def _menu(words: Mapping[str, Any], offers: str, target: str | None) -> dict[str, Any]:
    intents: list[dict[str, Any]] = [
        {
            "name": CALL_BACK,
            "key": "2",
            "anywhere": True,
            "phrases": words["call_back_phrases"],
            "reply": words["noted"],
            "tool": f"note_{CALL_BACK}",
        }
    ]
    if target is not None:
        person = {"phrases": words["person_phrases"], "reply": words["connecting"], "transfer": target}
        intents.insert(0, {"name": PERSON, "key": "1", "anywhere": True, **person})
    again = f"{words['not_understood']} {offers}"
    return {
        "intents": intents,
        "tools": {f"note_{CALL_BACK}": {"type": "call_back", "error": words["no_number"]}},
        "fallback": {
            "not_understood": [again, again],
            "reply": words["not_understood"],
            "no_transfer": words["no_transfer"],
            **({"transfer": target} if target is not None else {}),
        },
    }


@cache
def menus() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(files("trunkline.agents").joinpath("alone.toml").read_text("utf-8"))


LACKING = (ConfigError, MissingExtra, ImportError)
"""What `build_alone` raises on a machine that has no ears or no voice of its own."""


def nobody_serves(definition: AgentDefinition, lacks: str) -> str:
    """For an admin, in one line."""
    return (
        f"agent {definition.name}: callers who agree to no third party are hung up on, as it has none of its own: "
        f"{lacks}; add local [stt] and [tts] to its file as spares, or pip install 'trunkline[local]'"
    )
