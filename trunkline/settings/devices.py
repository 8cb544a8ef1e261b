"""[devices]: browsers, speakers, apps."""

from typing import Annotated

from pydantic import AfterValidator

from trunkline.settings.addresses import public_origin
from trunkline.settings.values import Section, Texts


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(public_origin(origin) for origin in origins)


class Devices(Section):
    origins: Annotated[Texts, AfterValidator(_origins)] = ()
    """Pages of other sites that may call, by their origin."""
