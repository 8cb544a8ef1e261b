"""What is wrong with settings, a line each, under the name that the admin wrote."""

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic_core import ErrorDetails

from trunkline.errors import ConfigError
from trunkline.settings.environment import ENV_PREFIX, set_variables, variable
from trunkline.settings.names import general, keys, known, specific
from trunkline.settings.settings import Settings

MAX_SHOWN_CHARS = 80


class WrongSettings(ConfigError):
    """Everything wrong at once; `str()` is one line per problem."""

    def __init__(self, errors: list[ConfigError]) -> None:
        super().__init__(errors[0].key, errors[0].value, errors[0].allowed)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class _Shown:
    """A value as an error line shows it: itself, shortened, or hidden when it is or may be a secret."""

    def __init__(self, text: str) -> None:
        self._text = text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."

    def __repr__(self) -> str:
        return self._text


HIDDEN = _Shown("(hidden)")


def unknown(name: str, names: Collection[str]) -> ConfigError:
    """The value is hidden: it may be a secret under a misspelt name."""
    prefix = ENV_PREFIX if name.upper().startswith(ENV_PREFIX) else ""
    wanted = name[len(prefix) :].upper() if prefix else name
    like = [specific(name.removeprefix(prefix), wanted, "__" if prefix else ".") for name in names]
    near = [key for key in like if key.startswith(f"{wanted}__")] or get_close_matches(wanted, like, n=1)
    return ConfigError(name, HIDDEN, "no such setting" + (f"; did you mean {prefix}{near[0]}?" if near else ""))


def explain(problem: ErrorDetails) -> ConfigError:
    """One problem as one line, under the name the admin used: the variable if it is set, else the key in the file."""
    parts = [str(part) for part in problem["loc"]]
    if problem["type"] == "contradiction":
        context = problem["ctx"]
        return ConfigError(_as_written(".".join([*parts, context["key"]])), context["value"], context["allowed"])
    if parts[-1:] == ["[key]"]:
        return ConfigError(".".join(parts[:-1]), HIDDEN, "a name of small letters, digits, - and _, at most 40")
    key = next((k for n in range(len(parts), 0, -1) if general(k := ".".join(parts[:n])) in keys()), "")
    if not key:
        dotted = ".".join(parts)
        if problem["type"] == "extra_forbidden":
            return unknown(dotted, [*keys(), *Settings.model_fields])
        return ConfigError(dotted, HIDDEN, f"a section, written [{dotted}]")
    field = keys()[general(key)]
    shown = HIDDEN if _is_secret(field) else _Shown(repr(problem["input"]))
    return ConfigError(_as_written(key), shown, _allowed(field, problem))


def named_already(problem: ErrorDetails) -> bool:
    """An unknown variable that pydantic-settings took for a section (TRUNKLINE_HTTP) or put into one."""
    name = variable(".".join(str(part) for part in problem["loc"]))
    return name in set_variables() and not known(name)


def _as_written(key: str) -> str:
    name = variable(key)
    return name if name in set_variables() else key


def _is_secret(field: Any) -> bool:
    return "SecretStr" in repr(field.annotation)


def _allowed(field: Any, problem: ErrorDetails) -> str:
    if problem["type"] == "value_error":
        return problem["msg"].removeprefix("Value error, ")
    metadata = {type(m).__name__.lower(): m for m in (*field.metadata, *_inner_metadata(field.annotation))}
    parts = (field.annotation, *get_args(field.annotation))
    kinds = {get_args(part)[0] if get_origin(part) is Annotated else part for part in parts}
    if choices := [c for kind in kinds if get_origin(kind) is Literal for c in get_args(kind)]:
        return "one of " + ", ".join(choices)
    if bool in kinds:
        return "true or false"
    if int in kinds or float in kinds:
        whole = "a whole number" if int in kinds else "a number"
        return f"{whole} from {metadata['ge'].ge:g} to {metadata['le'].le:g}" if "ge" in metadata else whole
    if tuple in {get_origin(kind) or kind for kind in kinds}:
        return "a text or a list of texts"
    if kinds & {str, SecretStr} and "maxlen" in metadata:
        return f"a text of 1 to {metadata['maxlen'].max_length} characters"
    return "a path" if Path in kinds else "a text"


def _inner_metadata(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        for metadata in getattr(part, "__metadata__", ()):
            yield from getattr(metadata, "metadata", ()) or (metadata,)
