"""Schemathesis against a real gateway: what /openapi.json says holds for whatever is asked. What it may expect beyond
HTTP's own rules is in schemathesis.toml. There is no trunk here, and nothing but loopback is asked."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.e2e

OPERATOR = "0123456789abcdef0123"
SCHEMATHESIS = [
    sys.executable,
    "-m",
    "schemathesis.cli",
    "--config-file",
    str(Path(__file__).with_name("schemathesis.toml")),
]
AT_LEAST = 300  # requests: else it has not asked much
SHORT_S, LONG_S = 120, 1200  # until it is given up
ROWS: dict[str, dict[str, Any]] = {
    "/v1/hours": {"name": "office", "zone": "Europe/Berlin", "weekly": {"mon": ["09:00-17:00"]}},
    "/v1/routes": {"name": "front", "answer": {"kind": "busy"}, "hours": "office"},
    "/v1/numbers": {"number": "+14155550102", "route": "front"},
    "/v1/budgets": {"name": "daily", "scope": "tenant", "per": "day", "usd": "5"},
    "/v1/users": {"name": "ann", "email": "ann@example.com"},
    "/v1/webhooks": {"url": "https://example.com/hook", "enabled": False},
}


def started(start_gateway: Any) -> Any:
    gateway = start_gateway(http__api_key=OPERATOR, http__requests_per_minute="1000000")
    for path, body in ROWS.items():
        made = httpx.post(f"{gateway.origin}{path}", json=body, headers={"X-Api-Key": OPERATOR})
        assert made.status_code == 201, made.text
    return gateway


def reader(gateway: Any) -> str:
    """The key of another tenant, that may look."""
    headers = {"X-Api-Key": OPERATOR, "Trunkline-Tenant": "theirs"}
    made = httpx.post(f"{gateway.origin}/v1/keys", json={"name": "reader", "scopes": ["read"]}, headers=headers)
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


def assert_it_finds_nothing(gateway: Any, key: str, folder: Path, *more: str, timeout_s: float = SHORT_S) -> None:
    asked = ["run", f"{gateway.origin}/openapi.json", "--header", f"Authorization: Bearer {key}", "--no-color"]
    asked += ["--seed", "9", "--continue-on-failure", "--no-shrink", "--suppress-health-check", "all"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    ran = subprocess.run(
        [*SCHEMATHESIS, *asked, *more],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=timeout_s,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    tried = re.search(r"([0-9]+) generated, ([0-9]+) passed", ran.stdout)
    assert tried is not None, ran.stdout
    assert AT_LEAST < int(tried[1]) == int(tried[2]), ran.stdout
    assert gateway.complaints() == []


def test_the_operator_is_answered_as_the_document_says(start_gateway: Any, tmp_path: Path) -> None:
    assert_it_finds_nothing(started(start_gateway), OPERATOR, tmp_path, "--phases", "fuzzing", "--max-examples", "6")


@pytest.mark.show
def test_so_is_another_tenant_that_may_only_look(start_gateway: Any, tmp_path: Path) -> None:
    gateway = started(start_gateway)
    assert_it_finds_nothing(gateway, reader(gateway), tmp_path, "--phases", "fuzzing", "--max-examples", "3")


@pytest.mark.show
@pytest.mark.parametrize("who", ["operator", "reader"])
def test_so_is_each_for_every_bound_and_many_examples(start_gateway: Any, tmp_path: Path, who: str) -> None:
    gateway = started(start_gateway)
    key = OPERATOR if who == "operator" else reader(gateway)
    phases = ("--phases", "coverage,fuzzing", "--max-examples", "50")
    assert_it_finds_nothing(gateway, key, tmp_path, *phases, timeout_s=LONG_S)
