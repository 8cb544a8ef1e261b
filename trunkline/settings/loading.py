"""The file and the environment, read."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trunkline.errors import ConfigError
from trunkline.settings.environment import set_variables
from trunkline.settings.names import known, variables
from trunkline.settings.settings import Settings
from trunkline.settings.wrong import HIDDEN, WrongSettings, explain, named_already, unknown

CONFIG_FILE = "trunkline.toml"


def load(config_path: Path | None = None) -> Settings:
    """Raises WrongSettings (a ConfigError): one line per wrong setting. A missing trunkline.toml is no error, a missing
    `config_path` is."""
    written = _read_file(config_path)
    errors = [unknown(name, variables()) for name in set_variables() if not known(name)]
    try:
        settings = Settings(**written)
    except ValidationError as invalid:
        errors += [explain(p) for p in invalid.errors() if not named_already(p)]
    except Exception as error:  # pydantic-settings reads a section's own name as JSON; `unknown` has named it
        if not errors:
            raise ConfigError("settings", HIDDEN, str(error)) from error
    if errors:
        raise WrongSettings(errors)
    return settings


def _read_file(config_path: Path | None) -> dict[str, Any]:
    path = config_path or Path(CONFIG_FILE)
    if config_path is None and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        allowed = f"a readable TOML file ({(error.strerror or 'unreadable').lower()})"
        raise WrongSettings([ConfigError("config file", str(path), allowed)]) from error
    except ValueError as error:  # TOML and UTF-8 both; their messages may quote a line, so only the place is shown
        place = str(error).rpartition("(")[2].rstrip(")") if "(at " in str(error) else "not UTF-8"
        raise WrongSettings([ConfigError("config file", str(path), f"valid TOML; look {place}")]) from error
