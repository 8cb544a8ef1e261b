"""The price table: what is wrong is named by row and field, and what is not there is never zero."""

import json
import re
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from trunkline.compliance.money import prices
from trunkline.compliance.money.prices import COLUMNS, Missing, load, read
from trunkline.errors import ConfigError
from trunkline.ports import HERE

GOOD = "acme,stt,ears-1,streaming,seconds,0.00008,1,,2026-11-01,acme.example/pricing"


def table(*rows: str) -> str:
    return "\n".join(["# version 2026-11-28", COLUMNS, *rows])


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (GOOD.replace("0.00008", "-0.01"), "row 3, price"),
        (GOOD.replace("0.00008", "free"), "row 3, price"),
        (GOOD.replace("0.00008", "NaN"), "row 3, price"),
        (GOOD.replace("0.00008", ""), "row 3, price"),
        (GOOD.replace("seconds", "hours"), "row 3, unit"),
        (GOOD.replace(",stt,", ",ears,"), "row 3, kind"),
        (GOOD.replace(",1,,", ",0,,"), "row 3, per"),
        (GOOD.replace(",1,,", ",1,-60,"), "row 3, round_to"),
        (GOOD.replace("2026-11-01", "last week"), "row 3, date"),
        (GOOD.replace("acme.example/pricing", ""), "row 3, source"),
        (GOOD.replace("ears-1", "e*rs"), "row 3, product"),
        (GOOD.replace("ears-1", HERE), "row 3, product"),
        (GOOD + ",more", "row 3 "),
        ("acme,stt", "row 3 "),
    ],
)
def test_what_is_wrong_is_named_by_row_and_field(row: str, named: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        read(table(row))
    assert named in str(wrong.value) + " "


def test_a_row_that_is_there_twice_is_named_with_the_first() -> None:
    with pytest.raises(ConfigError, match=r"row 4, product.*row 3"):
        read(table(GOOD, GOOD.replace("0.00008", "0.00009")))


def test_a_table_without_version_columns_or_rows_is_none() -> None:
    for text in ("", COLUMNS, "# version 1\n", f"# version 1\n{COLUMNS}", f"# version 1\nprovider,price\n{GOOD}"):
        with pytest.raises(ConfigError, match=r"prices\.csv"):
            read(text)


def test_the_very_product_goes_before_its_beginning_and_that_before_all() -> None:
    found = read(
        table(
            GOOD.replace("ears-1", "*").replace("0.00008", "3"),
            GOOD.replace("ears-1", "ears-*").replace("0.00008", "2"),
            GOOD.replace("0.00008", "1"),
        )
    )
    asked = [found.of("acme", "stt", product, "seconds")[0].price for product in ("ears-1", "ears-2", "nose")]
    assert asked == [1, 2, 3]


def test_an_unknown_price_is_missing_and_its_row_is_named() -> None:
    found = load()
    assert found.missing("openai", "llm", "gpt-9") == (
        Missing("openai", "llm", "gpt-9", "tokens_in"),
        Missing("openai", "llm", "gpt-9", "tokens_out"),
    )
    assert str(found.missing("sip", "leg", "inbound-US")[0]) == "no price for sip,leg,inbound-US per seconds"
    assert found.missing("sip", "leg", HERE) == ()


def test_a_stream_is_billed_by_itself_and_needs_a_row_too() -> None:
    """Or a call to a country that no row knows would cost what its media stream does."""
    found = load()
    assert found.of("twilio", "leg", "outbound-CU", "seconds") == ()
    assert [row.item for row in found.of("twilio", "leg", "inbound-US", "seconds")] == ["voice"]
    assert [row.item for row in found.of("twilio", "leg", "outbound-CU", "stream_seconds")] == ["stream"]
    without = read(table("twilio,leg,inbound*,voice,seconds,0.01,60,60,2026-11-01,contract"))
    assert [m.unit for m in without.missing("twilio", "leg", "inbound-US")] == ["stream_seconds"]


def test_tokens_from_a_cache_without_a_row_cost_what_others_do() -> None:
    found = read(table(GOOD.replace("stt", "llm").replace("seconds", "tokens_in")))
    assert found.of("acme", "llm", "ears-1", "cached_tokens_in") == found.of("acme", "llm", "ears-1", "tokens_in")


@pytest.mark.parametrize(("seconds", "billed"), [("0", "0"), ("0.1", "60"), ("60", "60"), ("60.02", "120")])
def test_minutes_are_billed_whole(seconds: str, billed: str) -> None:
    voice = load().of("twilio", "leg", "inbound-US", "seconds")[0]
    assert voice.billed(Decimal(seconds)) == Decimal(billed)
    assert voice.cost(Decimal(seconds)) == Decimal(billed) / 60 * Decimal("0.0085")


def test_six_second_steps() -> None:
    trunk = read(table("t,leg,*,voice,seconds,0.006,60,6,2026-11-01,contract")).of("t", "leg", "inbound", "seconds")[0]
    assert trunk.billed(Decimal("61")) == 66


def test_old_rows_are_known() -> None:
    found = read(table(GOOD, GOOD.replace("ears-1", "ears-2").replace("2026-11-01", "2026-01-01")))
    assert [row.product for row in found.old(date(2026, 11, 28), 90)] == ["ears-2"]


def test_a_folder_takes_the_place_of_ours(tmp_path: Path) -> None:
    for nowhere in (tmp_path, tmp_path / "misspelled"):
        with pytest.raises(ConfigError, match=re.escape(f"prices.csv = '{nowhere}'")):
            load(nowhere)
    (tmp_path / "prices.csv").write_text(table(GOOD))
    assert len(load(tmp_path).rows) == 1


def test_ours_are_those_of_the_published_map() -> None:
    vectors = Path(prices.__file__).parents[4] / "shared" / "vectors" / "prices_litellm_2026-11-12.json"
    if not vectors.exists():
        pytest.skip("no shared vectors")
    usd = json.loads(vectors.read_text(), parse_float=Decimal)["usd"]
    names = {
        "input_cost_per_token": "tokens_in",
        "cache_read_input_token_cost": "cached_tokens_in",
        "output_cost_per_token": "tokens_out",
        "input_cost_per_audio_token": "audio_tokens_in",
        "cache_read_input_audio_token_cost": "cached_audio_tokens_in",
        "output_cost_per_audio_token": "audio_tokens_out",
    }
    found, checked = load(), 0
    for model, row in usd.items():
        kind = "realtime" if "realtime" in model else "llm"
        for name, unit in names.items():
            ours = found.of("openai", kind, model, unit)  # type: ignore[arg-type]
            if name in row and ours:
                assert ours[0].price / ours[0].per == row[name], (model, unit)
                checked += 1
    assert checked > 60
