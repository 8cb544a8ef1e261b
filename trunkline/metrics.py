"""What Prometheus may know. One object with a method per fact; labels come from closed sets, never from a peer.

Cheap on the hot path: a method is one `inc` or `observe` on a child made beforehand.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from trunkline.ports import EndReason, TurnRecord

PRODUCTS_MAX = 500  # that costs are told by; what comes after them is "other"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Stage = Literal["endpointing", "stt", "llm", "tts", "total", "barge_in"]
Drop = Literal[
    "lane_in_full",  # frames the call could not take in time
    "lane_out_full",
    "late",  # came after its place was played
    "sequence_gap",  # the carrier's numbering skipped
    "bad_message",  # JSON, base64, encoding, unknown event
    "slow_reader",  # the peer does not read what we send
    "stt_queue_full",
    "tts_queue_full",
    "spool_full",
    "telemetry",
    "audit_full",  # rows of the audit log
]
Webhook = Literal["voice", "queue", "continue", "status", "stream_status", "dial_status", "machine"]
Hooked = Literal["delivered", "failed", "dead"]
Outcome = Literal["ok", "bad_request", "bad_signature", "error"]
Turned = Literal["stranger", "over_rate", "bad_digest", "full", "malformed", "refer"]
Joined = Literal["joined", "resumed", "refused", "away"]
SessionTrouble = Literal["away", "dropped", "moved"]
Offered = Literal[
    "opened",
    "malformed",  # and on: refused, by the code that the device was told
    "too_large",
    "no_audio",
    "no_codec",
    "not_supported",
    "no_token",
    "no_sessions",
    "token_malformed",
    "token_forged",
    "token_expired",
    "token_used",
    "session_over",
    "sessions_away",
    "agent_away",
    "overloaded",
    "draining",
    "no_path",
    "other",
]
Unreached = Literal["ice", "dtls", "other"]
WebRtcPackets = Literal[
    "received", "lost", "late", "repeated", "undecodable", "concealed", "unarmed", "sent", "sent_lost"
]
Overheard = Literal["heard", "missed"]
PoolEvent = Literal["done", "failed", "overloaded", "restarted"]

_LATENCY_S = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_BEAT_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_JITTER_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
_CLOSE_CODES = (1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009, 1011, 1012, 1013)


class Metrics:
    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Its own registry, so that tests and a second gateway in one process do not meet."""
        self._registry = registry = registry or CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

        self._live = Gauge("trunkline_calls_live", "Calls now on the line.", registry=registry)
        ended = Counter("trunkline_calls", "Calls ended, by reason.", ["reason"], registry=registry)
        self._ended = {reason: ended.labels(reason) for reason in get_args(EndReason)}
        self._lateness = Histogram(
            "trunkline_tick_lateness_seconds",
            "How late a heartbeat began.",
            buckets=_BEAT_S,
            registry=registry,
        )
        self._beat = Histogram(
            "trunkline_beat_duration_seconds",
            "How long a heartbeat took, all calls together.",
            buckets=_BEAT_S,
            registry=registry,
        )
        stages = Histogram(
            "trunkline_stage_latency_seconds",
            "Latency of a turn by stage; total is T0 to T1.",
            ["stage"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self._stages = {stage: stages.labels(stage) for stage in get_args(Stage)}
        drops = Counter("trunkline_drops", "Things dropped, by cause.", ["cause"], registry=registry)
        self._drops = {cause: drops.labels(cause) for cause in get_args(Drop)}
        closes = Counter("trunkline_ws_closes", "Media sockets closed, by RFC 6455 code.", ["code"], registry=registry)
        self._closes = {code: closes.labels(str(code)) for code in _CLOSE_CODES}
        self._other_close = closes.labels("other")
        self._sockets = Gauge("trunkline_ws_open", "Media sockets now open.", registry=registry)
        webhooks = Counter(
            "trunkline_webhooks", "Twilio webhooks, by kind and outcome.", ["kind", "outcome"], registry=registry
        )
        self._webhooks = {
            (kind, outcome): webhooks.labels(kind, outcome)
            for kind in get_args(Webhook)
            for outcome in get_args(Outcome)
        }
        self._spool = Gauge("trunkline_spool_backlog", "Record events not yet in the database.", registry=registry)
        self._audit = Gauge("trunkline_audit_waiting", "Audit files not yet in their bucket.", registry=registry)
        self._store_errors = Counter("trunkline_store_errors", "Failed writes to spool or database.", registry=registry)
        jobs = Counter("trunkline_speech_jobs", "Jobs of the local speech pool.", ["result"], registry=registry)
        self._jobs = {event: jobs.labels(event) for event in get_args(PoolEvent)}
        self._job_queue = Gauge("trunkline_speech_queue", "Jobs waiting for a speech worker.", registry=registry)
        overheard = Counter(
            "trunkline_overheard",
            "Callers' speech that second ears listened to for wishes, and what there was no room for.",
            ["result"],
            registry=registry,
        )
        self._overheard = {result: overheard.labels(result) for result in get_args(Overheard)}
        joins = Counter("trunkline_joins", "Devices that came with a join token.", ["result"], registry=registry)
        self._joins = {result: joins.labels(result) for result in get_args(Joined)}
        troubles = Counter(
            "trunkline_session_troubles",
            "The session store was away, what was said was given up, or a session went on elsewhere.",
            ["kind"],
            registry=registry,
        )
        self._troubles = {kind: troubles.labels(kind) for kind in get_args(SessionTrouble)}
        self._tasks = Gauge("trunkline_tasks", "Tasks of the event loop.", registry=registry)
        self._slots = Gauge("trunkline_ears_slots_free", "Calls whose audio could yet be heard.", registry=registry)

        self._dialogs = Gauge("trunkline_sip_dialogs", "SIP dialogs, ringing and ending ones too.", registry=registry)
        turned = Counter("trunkline_sip_turned_away", "SIP requests that got no further.", ["cause"], registry=registry)
        self._turned = {cause: turned.labels(cause) for cause in get_args(Turned)}
        self._trunks = Gauge("trunkline_sip_trunk_up", "1 up, 0 down, -1 not asked.", ["trunk"], registry=registry)
        self._clock_late = Gauge(
            "trunkline_sip_clock_lateness_seconds", "The SIP media clock's, p99 of a second.", registry=registry
        )

        self._webrtc_legs = Gauge(
            "trunkline_webrtc_legs", "WebRTC legs, by how far they are.", ["state"], registry=registry
        )
        offers = Counter("trunkline_webrtc_offers", "WebRTC offers, by outcome.", ["outcome"], registry=registry)
        self._offers = {outcome: offers.labels(outcome) for outcome in get_args(Offered)}
        unreached = Counter(
            "trunkline_webrtc_unreached",
            "WebRTC legs that never connected, by what did not complete.",
            ["phase"],
            registry=registry,
        )
        self._unreached = {phase: unreached.labels(phase) for phase in get_args(Unreached)}
        packets = Counter("trunkline_webrtc_packets", "RTP of WebRTC legs that are over.", ["fate"], registry=registry)
        self._packets = {fate: packets.labels(fate) for fate in get_args(WebRtcPackets)}
        self._jitter = Histogram(
            "trunkline_webrtc_jitter_seconds",
            "Interarrival jitter (RFC 3550) of WebRTC legs, at their end.",
            buckets=_JITTER_S,
            registry=registry,
        )

        self._providers = Gauge(
            "trunkline_provider_up",
            "Circuit breaker of a provider: 1 closed, 0.5 being probed, 0 open.",
            ["provider"],
            registry=registry,
        )
        self._requests = Counter(
            "trunkline_provider_requests", "What a provider was asked for.", ["provider", "result"], registry=registry
        )
        self._counted: dict[tuple[str, str], int] = {}
        billed = ["provider", "kind", "product"]
        self._cost = Counter("trunkline_cost_usd", "What was used, by the price table.", billed, registry=registry)
        self._unpriced = Counter(
            "trunkline_unpriced", "Usages that no row prices: in no sum.", billed, registry=registry
        )
        self._costs: dict[tuple[str, str, str, bool], Counter] = {}
        hooks = Counter("trunkline_hook_attempts", "Webhooks sent, by what came of it.", ["result"], registry=registry)
        self._hooks = {result: hooks.labels(result) for result in get_args(Hooked)}
        self._hooks_waiting = Gauge("trunkline_hooks_waiting", "Webhooks to be sent yet.", registry=registry)
        self._hooks_oldest = Gauge(
            "trunkline_hooks_oldest_seconds", "Age of the oldest webhook that waits.", registry=registry
        )

    def hook_attempt(self, result: Hooked) -> None:
        self._hooks[result].inc()

    def hook_backlog(self, waiting: int, oldest_s: float) -> None:
        self._hooks_waiting.set(waiting)
        self._hooks_oldest.set(max(0.0, oldest_s))

    def live_calls(self, count: int) -> None:
        self._live.set(count)

    def call_ended(self, reason: EndReason) -> None:
        self._ended[reason].inc()

    def beat(self, lateness_s: float, duration_s: float) -> None:
        self._lateness.observe(lateness_s)
        self._beat.observe(duration_s)

    def stage(self, stage: Stage, latency_ms: float) -> None:
        self._stages[stage].observe(latency_ms / 1000)

    def turn(self, turn: TurnRecord) -> None:
        """Every stage that the turn had."""
        for stage, histogram in self._stages.items():
            latency_ms = getattr(turn, f"{stage}_ms")
            if latency_ms is not None:
                histogram.observe(latency_ms / 1000)

    def drop(self, cause: Drop, count: int = 1) -> None:
        self._drops[cause].inc(count)

    def socket_opened(self) -> None:
        self._sockets.inc()

    def socket_closed(self) -> None:
        self._sockets.dec()

    def ws_closed(self, code: int) -> None:
        self._closes.get(code, self._other_close).inc()

    def webhook(self, kind: Webhook, outcome: Outcome) -> None:
        self._webhooks[kind, outcome].inc()

    def spool_backlog(self, events: int) -> None:
        self._spool.set(events)

    def audit_waiting(self, files: int) -> None:
        self._audit.set(files)

    def store_error(self) -> None:
        self._store_errors.inc()

    def joined(self, result: Joined) -> None:
        self._joins[result].inc()

    def session_trouble(self, kind: SessionTrouble, count: int = 1) -> None:
        self._troubles[kind].inc(count)

    def speech_job(self, event: PoolEvent, count: int = 1) -> None:
        self._jobs[event].inc(count)

    def overheard(self, result: Overheard, count: int = 1) -> None:
        self._overheard[result].inc(count)

    def speech_queue(self, jobs: int) -> None:
        self._job_queue.set(jobs)

    def tasks(self, count: int) -> None:
        self._tasks.set(count)

    def slots_free(self, count: int) -> None:
        self._slots.set(count)

    def sip_dialogs(self, count: int) -> None:
        self._dialogs.set(count)

    def sip_turned_away(self, cause: Turned, count: int) -> None:
        self._turned[cause].inc(count)

    def sip_trunk(self, name: str, up: int) -> None:
        """`name` is of the configuration."""
        self._trunks.labels(name).set(up)

    def sip_clock_late(self, p99_s: float) -> None:
        self._clock_late.set(p99_s)

    def webrtc_legs(self, connecting: int, connected: int) -> None:
        self._webrtc_legs.labels("connecting").set(connecting)
        self._webrtc_legs.labels("connected").set(connected)

    def webrtc_offer(self, outcome: str) -> None:
        """`opened`, or the code of the refusal; one that is not of Offered is `other`."""
        self._offers.get(outcome, self._offers["other"]).inc()

    def webrtc_unreached(self, phase: Unreached) -> None:
        self._unreached[phase].inc()

    def webrtc_ended(self, stats: Mapping[str, float]) -> None:
        """A leg that was connected: its `stats()`."""
        for fate, counter in self._packets.items():
            counter.inc(max(0, stats[f"{fate}_packets"]))  # the far end may report fewer lost than none (RFC 3550 A.3)
        if stats["received_packets"]:
            self._jitter.observe(stats["jitter_ms"] / 1000)

    def provider(self, key: str, state: str, answered: int, failed: int) -> None:
        """`key` is of the configuration. Counts are totals."""
        self._providers.labels(key).set({"closed": 1.0, "half_open": 0.5}.get(state, 0.0))
        for result, total in (("answered", answered), ("failed", failed)):
            counter = self._requests.labels(key, result)
            counter.inc(total - self._counted.get((key, result), 0))
            self._counted[key, result] = total

    def no_provider(self, key: str) -> None:
        """Of an agent that is gone."""
        with suppress(KeyError):
            self._providers.remove(key)
        for result in ("answered", "failed"):
            with suppress(KeyError):
                self._requests.remove(key, result)
            self._counted.pop((key, result), None)

    def cost(self, provider: str, kind: str, product: str, usd: str | None) -> None:
        """`provider` is of the configuration; products are, too, but for the countries of legs. usd None: no price."""
        key = (provider, kind, product, usd is None)
        counter = self._costs.get(key)
        if counter is None:
            told = product if len(self._costs) < PRODUCTS_MAX else "other"
            counter = (self._unpriced if usd is None else self._cost).labels(provider, kind, told)
            if told == product:
                self._costs[key] = counter
        counter.inc(1 if usd is None else float(usd))

    def text(self) -> bytes:
        """The exposition for /metrics, of CONTENT_TYPE."""
        return generate_latest(self._registry)
