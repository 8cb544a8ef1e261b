"""[webhooks]: what may be told to whom."""

from trunkline.settings.values import Section


class Webhooks(Section):
    allow_private_addresses: bool = False
    """Whether endpoints may be on loopback and private networks, and over plain `http`."""
