"""Where somebody is, as far as a number and an address tell. Plain: values in, values out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from zoneinfo import available_timezones

import phonenumbers
from phonenumbers import timezone

from trunkline.compliance.destinations import MAX_CHARS, NO_COUNTRY
from trunkline.compliance.tables import Tables

_PARTS = ("US", "CA")
"""Countries whose area codes tell the part."""


@dataclass(frozen=True, slots=True)
class Where:
    """Everywhere they may be. No region: anywhere. A country alone: anywhere in it."""

    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str | None, ...]:
        return self.regions or (None,)


def where(number: str | None, region: str | None, zone: str | None, tables: Tables, by_address: bool = False) -> Where:
    """Number and address both count: a rule of either place holds, and a number that tells nothing may be anywhere.
    `by_address`: without an address, the number tells the country alone."""
    of_number = _where(number, by_address and region is None, tables) if number is not None else Where()
    if region is None:
        return Where(of_number.regions, _merged(of_number.zones, (zone,) if zone else ()))
    zones = _merged(of_number.zones, (zone,) if zone else _zones_of(region, tables))
    return Where(_merged(of_number.regions, (region,)) if of_number.regions else (), zones)


def _merged(some: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(some + more))


@lru_cache(maxsize=4096)
def _look(number: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Country, area code and zones of a valid number."""
    if len(number) > MAX_CHARS:
        return None
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return None
    country = phonenumbers.region_code_for_number(parsed)
    if country is None or country == NO_COUNTRY:
        return None
    zones = tuple(z for z in timezone.time_zones_for_number(parsed) if z != timezone.UNKNOWN_TIMEZONE)
    return country, phonenumbers.national_significant_number(parsed)[:3], zones


def _where(number: str, country_only: bool, tables: Tables) -> Where:
    found = _look(number)
    if found is None:
        return Where()
    country, code, zones = found
    if country_only:
        return Where((country,), country_zones().get(country, ()))
    if country in _PARTS:
        region, more = tables.area_codes.get(code, (country, country_zones().get(country, ())))
        return Where((region,), _merged(zones, more) if region != country else more or zones)
    return Where((country,), zones or country_zones().get(country, ()))


def _zones_of(region: str, tables: Tables) -> tuple[str, ...]:
    """Every zone of a place that was given by its region alone."""
    zones: tuple[str, ...] = ()
    for named, of_code in tables.area_codes.values():
        if named == region:
            zones = _merged(zones, of_code)
    return zones or country_zones().get(region.partition("-")[0], ())


def known_zone(name: str) -> bool:
    return name in _all_zones()


@cache
def _all_zones() -> frozenset[str]:
    return frozenset(available_timezones())


@cache
def country_zones() -> Mapping[str, tuple[str, ...]]:
    """Every time zone of each country, by IANA's zone.tab."""
    found: dict[str, tuple[str, ...]] = {}
    for line in files("tzdata").joinpath("zoneinfo").joinpath("zone.tab").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            country, _, zone = line.split("\t")[:3]
            found[country] = (*found.get(country, ()), zone)
    return found
