"""Whatever a provider or a leg of this tree can be billed for has a row in the table that comes with it, or is told in
docs/costs.md to have none."""

import re
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args

import pytest

from trunkline.agents.definition import AgentDefinition, ProviderChoice
from trunkline.agents.invoiced import billed_in, product_of
from trunkline.agents.providers import Services
from trunkline.agents.realtime import openai as openai_realtime
from trunkline.agents.stt import deepgram as deepgram_stt
from trunkline.agents.tts import deepgram as deepgram_tts
from trunkline.agents.tts import elevenlabs
from trunkline.agents.tts import openai as openai_tts
from trunkline.compliance.money.account import Account, Need, Terms
from trunkline.compliance.money.prices import load
from trunkline.compliance.money.treasury import Policy, Treasury, Wanted
from trunkline.gateway.endings import leg_product
from trunkline.gateway.leg import LegKind
from trunkline.gateway.spending import OWN_NETWORK
from trunkline.ports import HERE, Refuse
from trunkline.testing.clock import ManualClock

ROOT = Path(__file__).parents[3]
CHOICE = ProviderChoice("test")
AGENT = AgentDefinition("clinic", CHOICE, CHOICE, CHOICE, greeting="Hello.", goodbye="Bye.")
SERVICES = Services(ManualClock(), keys={"openai": "k", "deepgram": "k", "elevenlabs": "k"})

MODELS: dict[tuple[str, str], str] = {
    ("deepgram", "stt"): r"nova-3(?![-\w])|flux-general-(?:en|multi)",
    ("deepgram", "tts"): r"aura-2-[a-z]+-[a-z]{2}",
    ("elevenlabs", "tts"): r"eleven_\w+",
    ("openai", "realtime"): r"gpt-realtime(?!-whisper)(?:-[\w.]+)*",
    ("openai", "stt"): r"gpt-(?:\w+-)*transcribe|gpt-realtime-whisper",
    ("openai", "tts"): r"tts-1(?:-hd)?(?![-\w])|gpt-(?:\w+-)*tts",
    (
        "openai",
        "llm",
    ): r"gpt-(?:[4-9]|\d\d)(?!o-(?:mini-)?(?:tts|transcribe))[\w.]*(?:-(?:mini|nano|luna|terra))?(?![-\w])",
}
"""How the models of each are spelt, wherever the tree names one: in code, in examples, in the docs."""

HERE_ALWAYS = {"stt.pocketsphinx", "stt.sherpa", "llm.script", "tts.espeak", "tts.sherpa"}
OF_TESTS = {"stt.standin", "llm.standin", "tts.standin"}
ANYWHERE = {"stt.remote", "llm.remote", "tts.remote"}
"""Whoever runs them is whom their rows are of: told to have none."""


def told_without() -> list[tuple[str, str, str]]:
    text = (ROOT / "docs" / "costs.md").read_text()
    section = text.partition("## What has no row")[2].partition("\n## ")[0]
    found = re.findall(r"`(\w+),(\w+),([^,`]+)`", section)
    assert found, "the section is there"
    return found


def lacks(provider: str, kind: Any, product: str) -> bool:
    return bool(load().missing(provider, kind, product))


def excused(provider: str, kind: str, product: str) -> bool:
    return any((p, k) == (provider, kind) and fnmatchcase(product or "*", of) for p, k, of in told_without())


def named_in_the_tree() -> set[tuple[str, str, str]]:
    files = [path for folder in ("trunkline", "docs") for path in (ROOT / folder).rglob("*")]
    found = set()
    for path in [*files, ROOT / "README.md"]:
        if path.suffix in (".py", ".toml", ".md") and "static" not in path.parts:
            text = path.read_text()
            for (provider, kind), spelt in MODELS.items():
                found |= {(provider, kind, model) for model in re.findall(rf"(?<![-\w])(?:{spelt})", text)}
    return found


def test_every_model_that_the_tree_names_has_a_row() -> None:
    named = named_in_the_tree()
    assert {kind for _, kind, _ in named} == {"stt", "llm", "tts", "realtime"}, "nothing was found of a kind"
    without = sorted(each for each in named if lacks(*each) and not excused(*each))
    assert without == []


def built(name: str, options: dict[str, Any]) -> Any:
    [entry] = [e for e in entry_points(group="trunkline.providers") if e.name == name]
    return entry.load()(AGENT, options, SERVICES)


def test_every_backend_bills_by_a_row_with_what_its_options_can_make_of_it() -> None:
    known = {e.name for e in entry_points(group="trunkline.providers") if not e.name.startswith("turn.")}
    products: dict[str, list[dict[str, Any]]] = {
        "stt.deepgram": [
            {"model": model, "opt_out": opt_out, "language": language}
            for model in (deepgram_stt.OPTIONS["model"].default, "flux-general-en", "flux-general-multi")
            for opt_out in (False, True)
            for language in ("en", "multi")
        ],
        "tts.deepgram": [
            {"model": model, "opt_out": opt_out} for model in deepgram_tts.VOICES.values() for opt_out in (False, True)
        ],
        "tts.elevenlabs": [{"voice": "v", "model": model} for model in elevenlabs.LANGUAGES],
        "tts.openai": [{"model": model, "voice": "v"} for model in ("gpt-4o-mini-tts", "tts-1", "tts-1-hd")],
        "llm.openai": [{"model": "gpt-5-mini"}],
        "realtime.openai": [{"model": "gpt-realtime-2.1"}],
    }
    unknown = known - products.keys() - HERE_ALWAYS - OF_TESTS - ANYWHERE
    assert not unknown, f"{unknown}: what are they billed for?"
    for name, cases in products.items():
        kind = name.partition(".")[0]
        for options in cases:
            provider = built(name, options)
            product = product_of(provider)
            assert product not in ("", HERE), name
            if lacks(provider.name, kind, product):
                assert excused(provider.name, kind, product), (name, options)
            elif kind == "tts":
                assert load().of(provider.name, "tts", product, billed_in(provider)), "priced in what it is metered in"
            assert not (options.get("opt_out") and not lacks(provider.name, kind, product)), (
                "dearer, and not as the rest"
            )
    assert openai_realtime.OPTIONS["transcription"].default == "gpt-transcribe"
    assert openai_tts.OPTIONS["model"].required


@pytest.mark.parametrize("kind", get_args(LegKind))
def test_every_leg_has_a_row_or_is_told_to_have_none(kind: str) -> None:
    for direction in ("inbound", "outbound", "transfer"):
        product = HERE if kind in OWN_NETWORK else leg_product(direction, "+14155550100")
        if kind in OWN_NETWORK:
            [row] = load().of(kind, "leg", product, "seconds")
            assert row.price == 0, "said, and not forgotten"
        else:
            assert not lacks(kind, "leg", product) or excused(kind, "leg", product), product


def test_a_recording_on_this_disk_costs_nothing_and_a_row_says_so() -> None:
    [row] = load().of("disk", "recording", HERE, "seconds")
    assert row.price == 0


def test_what_is_told_to_have_no_row_has_none() -> None:
    for provider, kind, product in told_without():
        assert lacks(provider, kind, product.replace("*", "x")), (provider, kind, product)


@pytest.mark.parametrize("need", told_without())
def test_what_has_no_row_is_refused_by_its_name_or_capped(need: Need) -> None:
    provider, kind, product = need
    need = (provider, kind, product.replace("*", "x"))
    wanted = Wanted("c1", "clinic", None, [need])
    refused = Treasury(Policy(refuse_unknown=True), None, ManualClock()).open(wanted)
    assert isinstance(refused, Refuse)
    assert refused.code == "unknown_price"
    assert f"no price for {provider},{kind},{need[2]} per " in refused.why
    assert refused.why.endswith("add the row to prices.csv")
    capped = Treasury(Policy(Terms(assumed_usd_minute=Decimal("0.5"))), None, ManualClock()).open(wanted)
    assert isinstance(capped, Account)


def test_a_row_for_a_trunk_goes_before_one_for_all(tmp_path: Path) -> None:
    rows = [
        "sip,leg,*,voice,seconds,5,60,60,2026-11-28,contract",
        "sip,leg,inbound*,voice,seconds,4,60,60,2026-11-28,contract",
        "sip,leg,inbound-US,voice,seconds,3,60,60,2026-11-28,contract",
        "sip,leg,acme/*,voice,seconds,2,60,6,2026-11-28,contract",
        "sip,leg,acme/outbound-DE,voice,seconds,1,60,1,2026-11-28,contract",
    ]
    head = (ROOT / "trunkline/compliance/money/prices.csv").read_text().splitlines()
    columns = next(line for line in head if line.startswith("provider,"))
    (tmp_path / "prices.csv").write_text("\n".join(["# version 1", columns, *rows]))
    prices = load(tmp_path)
    asked = {
        leg_product("outbound", "+4930123456", "acme"): 1,
        leg_product("inbound", "+14155550100", "acme"): 2,
        leg_product("inbound", "+14155550100", "other"): 3,
        leg_product("inbound", None, "other"): 4,
        leg_product("transfer", "+14155550100", "other"): 5,
    }
    assert {product: prices.of("sip", "leg", product, "seconds")[0].price for product in asked} == asked
