"""Regions: where gateways are, which of them are healthy, and which one is nearest to a device. Plain values; a region
is asked by `regionwatch`, our own is as ready as we are."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

EARTH_RADIUS_KM = 6371.0088  # mean, IUGG
UP_AFTER, DOWN_AFTER = 2, 2  # answers in a row: one packet lost moves nobody to another continent


@dataclass(frozen=True, slots=True)
class Region:
    name: str
    url: str
    """Its origin, as devices reach it."""
    lat: float | None = None
    """Degrees; None for both: nobody knows where it is, and it is nobody's nearest."""
    lon: float | None = None


def distance_km(lat: float, lon: float, region: Region) -> float:
    """Along the great circle (haversine); infinite where it is not known."""
    if region.lat is None or region.lon is None:
        return math.inf
    a, b = math.radians(lat), math.radians(region.lat)
    half_lat, half_lon = (b - a) / 2, math.radians(region.lon - lon) / 2
    chord = math.sin(half_lat) ** 2 + math.cos(a) * math.cos(b) * math.sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(chord)))


@dataclass(slots=True)
class Pulse:
    """Whether a region is healthy, by its answers so far. One that was never asked is not; the first answer counts at
    once."""

    healthy: bool | None = None
    against: int = 0
    """Answers in a row that say otherwise."""

    def answered(self, ready: bool) -> bool:
        """True: its health has changed."""
        if self.healthy is None:
            self.healthy = ready
            return True
        self.against = 0 if ready == self.healthy else self.against + 1
        if self.against < (DOWN_AFTER if self.healthy else UP_AFTER):
            return False
        self.healthy, self.against = ready, 0
        return True


class Regions:
    def __init__(self, regions: Sequence[Region], own: str, own_ready: Callable[[], bool]) -> None:
        """`own`: the name of ours, which is one of them."""
        self._regions = {region.name: region for region in regions}
        self._own, self._own_ready = self._regions[own], own_ready
        self._pulses = {region.name: Pulse() for region in self.others}

    @property
    def own(self) -> Region:
        return self._own

    @property
    def others(self) -> Sequence[Region]:
        """Those to be asked."""
        return [region for region in self._regions.values() if region is not self._own]

    def answered(self, name: str, ready: bool) -> bool:
        """True: its health has changed."""
        return self._pulses[name].answered(ready)

    def healthy(self, name: str) -> bool:
        return self._own_ready() if name == self._own.name else self._pulses[name].healthy is True

    def nearest(self, lat: float | None = None, lon: float | None = None) -> tuple[Region, float | None] | None:
        """The nearest healthy region and its distance in km; None: none is healthy. Without coordinates, and of several
        equally far, ours comes first, then as configured."""
        candidates = [self._own, *self.others]
        alive = [region for region in candidates if self.healthy(region.name)]
        if not alive:
            return None
        if lat is None or lon is None:
            return alive[0], None
        found = min(alive, key=lambda region: distance_km(lat, lon, region))
        far = distance_km(lat, lon, found)
        return found, None if math.isinf(far) else far
