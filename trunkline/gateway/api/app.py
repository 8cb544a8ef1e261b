"""The HTTP side of the gateway, wired: webhooks, API, health, metrics. The media WebSocket is not here (front.py)."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from trunkline import __version__
from trunkline import metrics as exposition
from trunkline.clock import Clock
from trunkline.errors import StoreError
from trunkline.gateway.api.calls import CallRecords, Counsel, Expect, LiveCalls, call_routes
from trunkline.gateway.api.gate import Gate
from trunkline.gateway.api.guard import Guard
from trunkline.gateway.api.openapi import document
from trunkline.gateway.api.problems import on_bug, on_http_exception, on_store_error
from trunkline.gateway.api.ratelimit import RateLimit
from trunkline.gateway.arrival import Arrival
from trunkline.gateway.twilio.signature import Signatures
from trunkline.gateway.twilio.tokens import Tokens
from trunkline.gateway.twilio.webhooks import PlacedCalls, Webhooks, webhook_routes
from trunkline.gateway.twilio.webhooks import Switchboard as TwilioSwitchboard
from trunkline.metrics import Metrics
from trunkline.ports import Allow, Decision, Orders
from trunkline.settings import Settings
from trunkline.types import E164

NotReady = Callable[[], Sequence[str]]
"""Why new calls are not welcome: draining, starting, database... Empty: ready."""


class Switchboard(TwilioSwitchboard, LiveCalls, Protocol):
    pass


def create_http(
    settings: Settings,
    switchboard: Switchboard,
    records: CallRecords,
    metrics: Metrics,
    clock: Clock,
    not_ready: NotReady,
    tokens: Tokens,
    more_routes: Sequence[BaseRoute] = (),
    *,
    orders: Orders,
    placed: PlacedCalls | None = None,
    counsel: Counsel | None = None,
    may_fall_back: Callable[[E164, E164 | None], Decision] = lambda number, ours: Allow(),
    expect: Callable[[Arrival], Awaitable[None]] | None = None,
    keyed: Callable[[str, str], Awaitable[None]] | None = None,
    expect_order: Expect | None = None,
    gate: Gate | None = None,
    first_routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """`gate`: who may come in; None: whoever the settings let.

    `tokens` is the one whose `redeem` the media leg asks; `placed` knows calls of ours over Twilio."""
    origin = settings.http.origin

    async def index(request: Request) -> Response:
        return PlainTextResponse(plain_index(origin))

    https = origin.startswith("https:")
    signatures = Signatures(settings.twilio_tokens, origin)
    fallback = settings.twilio.fallback_number
    webhooks = Webhooks(
        switchboard,
        tokens,
        origin,
        fallback_number=fallback,
        fallback_text=settings.twilio.fallback_text,
        max_call_seconds=settings.limits.max_call_seconds,
        dial_caller_id=settings.twilio.dial_caller_id or "",
        placed=placed,
        signed=signatures.required,
        may_fall_back=partial(may_fall_back, E164(fallback)) if fallback else lambda ours: Allow(),
        expect=expect,
        keyed=keyed,
    )
    return Starlette(
        routes=[
            *webhook_routes(webhooks, signatures, metrics, clock),
            *first_routes,
            *call_routes(switchboard, records, orders, counsel, expect_order),
            *_own_routes(metrics, not_ready),
            *more_routes,
            Route("/", index),
        ],
        middleware=[
            Middleware(
                Guard,
                gate or Gate(settings.api_keys, clock),
                https=https,
                limit=RateLimit(settings.http.requests_per_minute),
                clock=clock,
            )
        ],
        exception_handlers={
            HTTPException: on_http_exception,
            StoreError: on_store_error,
            Exception: on_bug(https=https),
        },
    )


def _own_routes(metrics: Metrics, not_ready: NotReady) -> list[Route]:
    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        reasons = list(not_ready())
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def exposed(request: Request) -> Response:
        return Response(metrics.text(), media_type=exposition.CONTENT_TYPE)

    async def openapi(request: Request) -> Response:
        return JSONResponse(document())

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", exposed),
        Route("/openapi.json", openapi),
    ]


def plain_index(origin: str) -> str:
    return _INDEX.format(version=__version__, origin=origin)


_INDEX = """\
Trunkline {version}: the phone line for AI agents.

Call it:        trunkline call {origin}/twilio/voice      (or: make call)
From a phone:   point a Twilio number's voice webhook at {origin}/twilio/voice
Calls:          {origin}/v1/calls
The API:        {origin}/openapi.json
Health:         {origin}/healthz  {origin}/readyz  {origin}/metrics
"""
