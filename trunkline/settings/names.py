"""Which settings there are: their keys, dotted, and their variables."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from trunkline.settings.environment import ENV_PREFIX, variable
from trunkline.settings.settings import Settings

NAME = "NAME"
"""Stands in `keys()` for a name the admin chooses: sip.trunks.NAME.peers."""


@cache
def keys() -> Mapping[str, Any]:
    """Every key with its field, dotted: `http.port`; `sip.trunks.NAME.peers`."""
    return dict(_walk(Settings, ""))


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, f"{prefix}{name}.")
        elif (named := _named(field)) is not None:
            yield from _walk(named, f"{prefix}{name}.{NAME}.")
        else:
            yield prefix + str(field.validation_alias or name), field


def _named(field: Any) -> type[BaseModel] | None:
    """The section of which there is one for every name of the admin's."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) is dict else ()
    return kinds[-1] if kinds and isinstance(kinds[-1], type) and issubclass(kinds[-1], BaseModel) else None


@cache
def _open_sections() -> tuple[str, ...]:
    """`sip.trunks.`: where a name follows."""
    return tuple({key.partition(NAME)[0] for key in keys() if f".{NAME}." in key})


def general(key: str) -> str:
    """With NAME for the admin's name, as `keys()` has it."""
    for section in _open_sections():
        name, dot, rest = key.removeprefix(section).partition(".")
        if key.startswith(section) and name:
            return f"{section}{NAME}{dot}{rest}"
    return key


@cache
def variables() -> Mapping[str, str]:
    """Every variable with its key."""
    return {variable(key): key for key in keys()}


def known(name: str) -> bool:
    """Whether a variable is a setting's. [keys] and [sip.trunks] are open: their names are the admin's."""
    dotted = name[len(ENV_PREFIX) :].lower().replace("__", ".")
    return name in variables() or name.upper().startswith(f"{variable('keys')}__") or _is_named(dotted)


def _is_named(key: str) -> bool:
    return general(key) != key and general(key) in keys()


def specific(key: str, wanted: str, joint: str) -> str:
    """With the admin's name for NAME, where `wanted` has one."""
    section, named, rest = key.partition(f"{NAME}{joint}")
    name = wanted.removeprefix(section).partition(joint)[0] if named and wanted.startswith(section) else ""
    return f"{section}{name}{joint}{rest}" if name else key
