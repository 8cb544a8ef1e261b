"""What an admin may set: `trunkline.toml` (or --config FILE) and TRUNKLINE_* variables, the environment over the file.

A section and its key are joined with two underscores: `[http] port` is TRUNKLINE_HTTP__PORT, `[sip.trunks.carrier]
peers` is TRUNKLINE_SIP__TRUNKS__CARRIER__PEERS. A list is a TOML list, or in the environment its items with commas
between. Empty variables count as unset. Defaults live here and nowhere else; secrets are SecretStr and never shown, not
even in an error.

A section is a class, in a file with those beside it (`http`, `sip`, `trunk`, `twilio`, `calls`, `agents`, `sessions`,
`stir`, `logs`), made of kinds of values (`values`, `addresses`). `settings` puts them together, `names` knows every key
and variable, `loading` reads, `wrong` explains. `environment` is the only reader of it.
"""

from trunkline.settings.addresses import is_loopback
from trunkline.settings.agents import ProviderKey
from trunkline.settings.calls import Outbound
from trunkline.settings.environment import keep_mathematics_single_threaded, variable
from trunkline.settings.http import Http
from trunkline.settings.loading import load
from trunkline.settings.names import keys
from trunkline.settings.sessions import Livekit
from trunkline.settings.settings import Settings
from trunkline.settings.sip import Sip
from trunkline.settings.stir import Stir, StirKey, StirPolicy
from trunkline.settings.trunk import SIP_CODECS, SipTrunk
from trunkline.settings.twilio import Twilio
from trunkline.settings.webrtc import WebRtc
from trunkline.settings.wrong import WrongSettings

__all__ = [
    "SIP_CODECS",
    "Http",
    "Livekit",
    "Outbound",
    "ProviderKey",
    "Settings",
    "Sip",
    "SipTrunk",
    "Stir",
    "StirKey",
    "StirPolicy",
    "Twilio",
    "WebRtc",
    "WrongSettings",
    "is_loopback",
    "keep_mathematics_single_threaded",
    "keys",
    "load",
    "variable",
]
