"""Kinds of values that several sections have, and what a section is."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def contradiction(key: str, value: Any, allowed: str) -> PydanticCustomError:
    """Two settings that do not go together. `key` is relative to the section that raises it."""
    return PydanticCustomError("contradiction", "{allowed}", {"key": key, "value": str(value), "allowed": allowed})


def pair(section: Section, one: str, other: str, path: str = "") -> None:
    """Both or neither of two keys; `path` stands before their names in the line that says so."""
    if (getattr(section, one) is None) != (getattr(section, other) is None):
        given, missing = (one, other) if getattr(section, other) is None else (other, one)
        raise contradiction(given, getattr(section, given), f"needs {path}{missing} as well")


def listed(value: Any) -> Any:
    """One item or several: a TOML list or string, or items with commas between."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if isinstance(value, SecretStr):
        return (value,)
    return value


def _not_blank(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(not secret.get_secret_value().strip() for secret in secrets):
        raise ValueError("must not be blank")
    return secrets


def _existing(path: Path) -> Path:
    try:
        exists = path.is_file()
    except OSError:  # a name too long
        exists = False
    if not exists:
        raise ValueError("an existing file")
    return path


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # which pydantic takes for 0 or 1
        raise PydanticCustomError("bool", "a number")
    return value


def _e164(value: str) -> str:
    if not (value.startswith("+") and value[1:].isascii() and value[1:].isdigit() and 7 <= len(value) - 1 <= 15):
        raise ValueError("a phone number as +COUNTRY NUMBER without spaces, such as +14155550100")
    return value


def frames(duration_ms: int) -> int:
    if duration_ms % 20:
        raise ValueError("a multiple of 20 from 20 to 200")
    return duration_ms


def countries(codes: tuple[str, ...]) -> tuple[str, ...]:
    if any(len(code) != 2 or not code.isascii() or not code.isalpha() for code in codes):
        raise ValueError("two-letter country codes, such as US, GB")
    return tuple(code.upper() for code in codes)


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(listed), AfterValidator(_not_blank)]
File = Annotated[Path, AfterValidator(_existing)]
Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number)]
E164Text = Annotated[str, AfterValidator(_e164)]
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(listed)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=128)]
Name = Annotated[str, Field(pattern="^[a-z0-9_-]{1,40}$")]
"""The admin's, of one of several."""
