"""Where somebody is, as far as a number and an address tell. Plain: values in, values out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from zoneinfo import available_timezones

import phonenumbers
from phonenumbers import PhoneNumberType
from phonenumbers.tzdata import TIMEZONE_DATA, TIMEZONE_LONGEST_PREFIX

from trunkline.compliance.tables import Tables
from trunkline.plans import NO_COUNTRY, plan_of

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
        return Where(of_number.regions, _merged(of_number.zones, (zone,))) if zone else of_number
    zones = _merged(of_number.zones, (zone,) if zone else _zones_of(region, tables))
    return Where(_merged(of_number.regions, (region,)) if of_number.regions else (), zones)


def _merged(some: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(some + more))


@lru_cache(maxsize=4096)
def _look(number: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Country, area code (where it tells something) and zones of a valid number."""
    plan = plan_of(number)
    if plan is None or plan.region is None or plan.region == NO_COUNTRY:
        return None
    zones: tuple[str, ...] = ()
    if phonenumbers.is_number_type_geographical(plan.kind, plan.code):
        zones = _zones_by_prefix(f"{plan.code}{plan.national}")
    elif plan.kind != PhoneNumberType.UNKNOWN:
        zones = _zones_by_prefix(str(plan.code))
    return plan.region, plan.national[:3] if plan.region in _PARTS else "", zones


def _zones_by_prefix(digits: str) -> tuple[str, ...]:
    """The longest that libphonenumber knows."""
    for length in range(min(TIMEZONE_LONGEST_PREFIX, len(digits)), 0, -1):
        if (zones := TIMEZONE_DATA.get(digits[:length])) is not None:
            return tuple(zones)
    return ()


def _where(number: str, country_only: bool, tables: Tables) -> Where:
    found = _look(number)
    if found is None:
        return Where()
    return tables.remembered(("where", country_only, found), lambda: _found(*found, country_only, tables))


def _found(country: str, code: str, zones: tuple[str, ...], country_only: bool, tables: Tables) -> Where:
    if country_only:
        return Where((country,), country_zones().get(country, ()))
    if country in _PARTS:
        region, more = tables.area_codes.get(code, (country, country_zones().get(country, ())))
        return Where((region,), _merged(zones, more) if region != country else more or zones)
    return Where((country,), zones or country_zones().get(country, ()))


def _zones_of(region: str, tables: Tables) -> tuple[str, ...]:
    """Every zone of a place that was given by its region alone."""

    def find() -> tuple[str, ...]:
        zones: tuple[str, ...] = ()
        for named, of_code in tables.area_codes.values():
            if named == region:
                zones = _merged(zones, of_code)
        return zones or country_zones().get(region.partition("-")[0], ())

    return tables.remembered(("zones", region), find)


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
