import asyncio

import httpx

from trunkline.testing.caller import records


def pages(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/v1/calls":
        if request.url.params.get("cursor") == "2":
            return httpx.Response(200, json={"calls": [{"id": "b", "provider_call_id": "CA2"}], "next_cursor": None})
        first = [{"id": "x", "provider_call_id": "other"}, {"id": "a", "provider_call_id": "CA1"}]
        return httpx.Response(200, json={"calls": first, "next_cursor": "2"})
    assert request.headers["Authorization"] == "Bearer k"
    return httpx.Response(200, json={"id": request.url.path[-1], "live": False, "turns": [{"agent_text": "hi"}]})


def test_many_records_are_found_over_several_pages() -> None:
    async def run() -> dict[str, object]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(pages)) as http:
            return dict(await records.fetch_all(http, "http://h", "k", {"CA1", "CA2", "CA3"}))

    found = asyncio.run(run())
    assert set(found) == {"CA1", "CA2"}
    assert records.turns_of(found["CA1"]) == [{"agent_text": "hi"}]  # type: ignore[arg-type]


def test_a_call_is_over_when_its_record_says_so() -> None:
    """Its end is written a moment after its socket has closed."""
    ends = iter([None, None, "2026-11-22T15:00:00+00:00"])

    def late(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/calls":
            return pages(request)
        return httpx.Response(200, json={"id": "a", "live": False, "ended_at": next(ends)})

    async def run() -> object:
        async with httpx.AsyncClient(transport=httpx.MockTransport(late)) as http:
            return await records.fetch(http, "http://h", "k", "CA1")

    records.WAIT_S, before = 0.0, records.WAIT_S
    try:
        record = asyncio.run(run())
    finally:
        records.WAIT_S = before
    assert isinstance(record, dict)
    assert record["ended_at"] is not None


def test_one_record_is_found_by_its_call_sid() -> None:
    async def run() -> object:
        async with httpx.AsyncClient(transport=httpx.MockTransport(pages)) as http:
            return await records.fetch(http, "http://h/", "k", "CA1")

    record = asyncio.run(run())
    assert isinstance(record, dict)
    assert record["id"] == "a"
