"""Which pjsua2 is installed: ours, or the published wheel."""

from collections.abc import Sequence

import pjsua2 as pj

from trunkline.errors import ConfigError
from trunkline.gateway.sip.trunks import Trunk

TUNED = hasattr(pj, "Bridge")
_CURRENT = not TUNED or (hasattr(pj, "Refers") and hasattr(pj.Bridge, "codecs"))
PUBLISHED_CALLS = 4  # what the published wheel was compiled for
PJSUA_CALLS = 1024  # what ours was compiled for


def check(trunks: Sequence[Trunk]) -> None:
    """Raises ConfigError for a PJSIP that cannot do what is asked of it."""
    if not _CURRENT:
        raise ConfigError("sip", "enabled", "PJSIP was built for an older Trunkline: run `make pjsip`")
    for trunk in trunks if not TUNED else ():
        if trunk.username:
            key = f"sip.trunks.{trunk.name}.username"
            raise ConfigError(key, trunk.username, "PJSIP as published asks nobody for a password: run `make pjsip`")
        if trunk.refer:
            raise ConfigError(f"sip.trunks.{trunk.name}.refer", True, "PJSIP as published cannot: run `make pjsip`")
