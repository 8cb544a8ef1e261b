"""What one room needs of another: values and protocols, handed in by `app`.

Audio crosses a port in a Format that both sides named beforehand; text is plain; times are milliseconds within the
utterance, or monotonic seconds where a field says `at`.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol, runtime_checkable

from trunkline.types import CallId, Direction, Format, TenantId

# --- who is calling: what a signature says of the caller's number (compliance.stir) ---------------------------------


Attest = Literal["A", "B", "C"]
Mode = Literal["direct", "diverted", "passthrough"]


@dataclass(frozen=True, slots=True)
class CallerVerdict:
    """STIR/SHAKEN's answer. It authenticates a number, not a person: never enough by itself to show anybody data."""

    verdict: Literal["passed", "failed", "none"]
    """none: nothing was there that could be judged."""
    attest: Attest | None = None
    """What the signer claims: the customer and their right to the number, the customer, the way in. Worth something
    only where the verdict is `passed`."""
    reason: str | None = None
    """Why not `passed`: of `stir.reasons.REASONS`."""
    sip_code: int | None = None
    """What a SIP call that needs a verdict is refused with."""
    mode: Mode = "direct"
    source: str = "trunkline"
    """Who verified: we, or the carrier whose word it is."""
    raw: str = ""
    """The carrier's own words."""
    why: str = ""
    """`reason` for people."""
    origid: str | None = field(default=None, repr=False)
    rcd: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """What a signed `rcd` says of the caller (RFC 9795), by name: untrusted text, cut and cleaned."""


def is_vouched(verdict: CallerVerdict | None) -> bool:
    """Somebody who knows them says that the number is the caller's: passed, with full attestation."""
    return verdict is not None and (verdict.verdict, verdict.attest) == ("passed", "A")


# --- decisions: the doors (compliance answers, everyone asks) -------------------------------------------------------

Door = Literal["answer", "dial", "transfer", "record", "transcript", "third_party"]
Purpose = Literal["marketing", "transactional", "informational"]
ConsentForm = Literal["express_written", "express_oral", "implied"]
"""Keypad and speech during a call are `express_oral`; a number given for this very purpose is `implied`."""


@dataclass(frozen=True, slots=True)
class Lists:
    """True: the number is on it; False: it certainly is not; None: nobody knows, or the copy is too old to say."""

    stopped: bool | None = None
    """No call goes out at all: the admin's switch."""
    company: bool | None = None
    litigator: bool | None = None
    national: bool | None = None
    state: bool | None = None
    reassigned: bool | None = None
    """The number has another owner than the one who consented."""
    as_of: Mapping[str, datetime] = field(default_factory=dict)
    """When our copies were drawn, by list."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What ledger and lists say of somebody, gathered before the question. None is Unknown."""

    region: str | None = None
    """Where they are known to be, by address: `US-CA`, `DE`."""
    zone: str | None = None
    """The time zone of that address, as IANA names it."""
    lists: Lists = Lists()
    consent: ConsentForm | Literal["none", "revoked"] | None = None
    """The best that the ledger holds for this purpose and an artificial voice."""
    attempts: tuple[datetime, ...] | None = None
    """When that number was tried before, in the last 30 days at least; answered or not."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls out in the last hour, the one that is asked for not among them."""

    number: int
    """To this number."""
    country: int
    """To its country."""
    total: int


@dataclass(frozen=True, slots=True)
class CallOut:
    """A call that went out. `id`: by which every worker knows it."""

    id: str
    number: str = field(repr=False)
    """Empty: to a named transfer target, which may be put through to as often as callers want it."""
    country: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a door is asked. None is Unknown and never weakens the answer."""

    door: Door
    tenant: TenantId
    direction: Direction
    from_number: str | None = None
    to_number: str | None = None
    target: str | None = None
    """The named transfer target, or the provider that would receive audio or text."""
    identity: tuple[str, ...] = field(default=(), repr=False)
    """The call's Identity headers (RFC 8224), as they came. Never logged."""
    forwarded_by: str | None = None
    """The number that sent the call on to us, where it was diverted."""
    target_number: str | None = None
    """The number behind a named transfer target; digits without + where it is a SIP URI of such."""
    stir: CallerVerdict | None = None
    """What became of `identity`, or what the carrier said. None: nobody looked."""
    purpose: Purpose | None = None
    """Why we call: the order says it. An answer is given to what the caller wants, whatever that is."""
    standing: Standing = Standing()
    """What is known of the other party."""
    traffic: Traffic | None = None
    """Calls that went out in the last hour."""


ObligationKind = Literal["say_business", "say_ai", "say_recording", "say_opt_out", "say_callback", "ask_consent"]


@dataclass(frozen=True, slots=True)
class Obligation:
    """What is owed for an Allow. `say_...`: a part of the opening lines, spoken before anything else and not to be
    interrupted. `ask_consent`: `doors` are shut until the caller has agreed, and again once they withdraw."""

    kind: ObligationKind
    doors: tuple[Door, ...] = ()
    basis: str = ""
    """Whose rule asks for it: the row of the table, such as `recording/US-CA`."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question of a decision, as the record keeps it."""

    name: str
    answer: Literal["pass", "refuse", "unknown"]
    input: str
    """What was looked at, redacted as the record's numbers are."""
    data: str = ""
    """The version of the table that answered."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Allow:
    obligations: tuple[Obligation, ...] = ()
    checks: tuple[Check, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Refuse:
    code: str
    why: str
    checks: tuple[Check, ...] = field(default=(), compare=False, repr=False)


Decision = Allow | Refuse


class Decide(Protocol):
    def __call__(self, facts: Facts, now: datetime) -> Decision: ...


# --- consent: what the ledger keeps ---------------------------------------------------------------------------------

Technology = Literal["artificial_voice", "autodialer", "recording", "transcript", "ai_processing", "training"]
"""What is consented to. `artificial_voice` and `autodialer`: to be called so; `recording`, `transcript` and
`ai_processing` are the doors record, transcript and third_party; `training`: that what was said may train models."""
CapturedBy = Literal["keypad", "speech", "api", "import", "web_form", "paper_form", "operator"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the proof lies: a recording, a form, a call."""

    kind: str
    uri: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """Somebody agreed. `subject`: their number as E.164, or any stable name of who has none. Times are UTC."""

    tenant: TenantId
    subject: str = field(repr=False)
    form: ConsentForm
    at: datetime
    via: CapturedBy
    technologies: tuple[Technology, ...]
    wording: str = field(repr=False)
    """What they agreed to, word for word. The ledger keeps its SHA-256."""
    wording_version: str
    purposes: tuple[Purpose, ...] = ()
    """None: of no call of ours to them (a recording of this call)."""
    channels: tuple[Literal["voice", "sms", "email"], ...] = ("voice",)
    seller: str = ""
    """Whom they agreed with; empty: the business of the settings."""
    call_id: CallId | None = None
    evidence: tuple[Evidence, ...] = ()
    jurisdiction: str = ""
    valid_from: datetime | None = None
    """None: `at`."""
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """Somebody took it back: from `at` on, at once."""

    tenant: TenantId
    subject: str = field(repr=False)
    at: datetime
    via: CapturedBy
    verbatim: str = field(default="", repr=False)
    """The words or keys it was said with."""
    technologies: tuple[Technology, ...] = ()
    """None named: of every kind."""
    purposes: tuple[Purpose, ...] = ()
    """None named: for every purpose."""
    do_not_call: bool = False
    """They are not to be called again: the number goes on the company's list."""
    seller: str = ""
    call_id: CallId | None = None


class Consents(Protocol):
    """The ledger, as a live call sees it. Both return at once, never raise, and hold against kill -9 when they
    return; what was revoked counts for every decision of this process from then on, the database away or not."""

    def grant(self, given: Grant) -> None: ...

    def revoke(self, said: Revocation) -> None: ...

    async def on_disk(self) -> bool:
        """Whether all that was said so far would survive a loss of power. False: the disk is full or broken, and what
        was said is in memory only. Never raises."""
        ...


WishKind = Literal["do_not_call", "keep_nothing"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller may ask at any time: never to be called again; that nothing of the call is kept or handed on."""

    kind: WishKind
    verbatim: str = field(repr=False)
    """The words or keys it was said with. Never logged."""
    via: CapturedBy


# --- orders: what was asked for once is done once -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claimed:
    """The order is new, and from now on taken, whatever becomes of this process."""


@dataclass(frozen=True, slots=True)
class Known:
    """It was taken before, for this call."""

    call_id: CallId
    ours: bool
    """By this worker: whoever took it is this process or a dead one."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The key belongs to another order, the device to another account."""


class Orders(Protocol):
    """Idempotency keys, per tenant (the store). All methods raise StoreError when the database is away."""

    async def claim(self, tenant: TenantId, key: str, fingerprint: str, call_id: CallId) -> Claimed | Known | Conflict:
        """Durable when it returns, also against a loss of power. Of those who claim at once, one gets Claimed. When it
        raises, the order may have been taken."""
        ...

    async def release(self, tenant: TenantId, key: str, call_id: CallId) -> None:
        """Nothing came of the order: it may be given again."""
        ...


# --- devices ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Device:
    """A browser, a speaker, an app: what may hold sessions."""

    id: str
    tenant: TenantId
    device_account: str
    """Whose it is, as the admin's own system names them. Several devices may be one account's."""
    created: datetime
    seen: datetime
    """When it was last registered, or a session was opened for it."""
    name: str = ""
    needs_arming: bool = False
    """It sends audio only after its own wake word or button."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Public: whoever may read the record may read them."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a device says of itself."""

    name: str = ""
    needs_arming: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)


class Devices(Protocol):
    """Those that are known (the store). All methods raise StoreError when the database is away."""

    async def register(
        self, tenant: TenantId, device_id: str, device_account: str, said: Registration | None = None
    ) -> Device | Conflict:
        """As it is from now on. Known before: `said` takes the place of what it said then; None leaves it. Conflict:
        it is another account's."""
        ...

    async def get(self, tenant: TenantId, device_id: str) -> Device | None: ...


# --- usage: what the meter will count -------------------------------------------------------------------------------


UsageKind = Literal["leg", "stt", "llm", "tts", "realtime", "recording"]
UsageUnit = Literal[
    "seconds",
    "stream_seconds",  # of a leg's media stream, where its carrier bills that by itself
    "characters",
    "tokens_in",
    "cached_tokens_in",
    "tokens_out",
    "audio_tokens_in",
    "cached_audio_tokens_in",
    "audio_tokens_out",
    "calls",  # requests that were cut off, and whose tokens nobody tells
]
HERE = "here"
"""The product of what runs on this machine, or in our own network: nobody sends an invoice."""


@dataclass(frozen=True, slots=True)
class Usage:
    """One metered event. Tokens of text and of audio are counted apart where the provider tells them apart; where not,
    all are tokens_in and tokens_out. Tokens read from the provider's cache are not among tokens_in."""

    call_id: CallId
    provider: str
    kind: UsageKind
    unit: UsageUnit
    quantity: float
    product: str = ""
    """What the invoice calls it: the model, the direction of a leg; HERE."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a usage costs, one item of its invoice. Amounts are decimals as text."""

    item: str
    billed: str
    """Units, after rounding."""
    usd: str | None
    """None: no price is known."""
    as_of: str = ""
    """When the price was looked up."""
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """Of a budget: so much is wanted, of so much in all."""

    nano_usd: int
    limit_nano_usd: int
    had_nano_usd: int = 0
    """What the asker was given of it before. A store that knows each asker's part tells by it an answer that was never
    heard, and what it has forgotten itself."""


class Budgets(Protocol):
    """What all processes together have taken of budgets (the store). All methods raise StoreError when it is away."""

    async def take(self, tenant: TenantId, budget: str, share: Share) -> int:
        """How much of it there was, in nano-USD: from nothing to all."""
        ...

    async def give_back(self, tenant: TenantId, budget: str, nano_usd: int) -> None:
        """What was taken and not spent; negative: what was spent beyond it."""
        ...


class SlotStore(Protocol):
    """Slots of live calls, of all processes: leases in scopes (the store). All methods raise StoreError when it is
    away."""

    async def take(self, tenant: TenantId, name: str, scopes: Mapping[str, int], lease_s: float) -> str | None:
        """In all scopes or none: which of them has as many slots as its number says. None: it is taken; idempotent."""
        ...

    async def renew(self, tenant: TenantId, held: Mapping[str, Sequence[str]], lease_s: float) -> None:
        """By name, the scopes of each; also of what was lost or let go meanwhile, full or not."""
        ...

    async def give_back(self, tenant: TenantId, names: Sequence[str]) -> None: ...


# --- numbers: what admins own, as calls look at it (the store) -------------------------------------------------------

Columns = Mapping[str, Any]
"""Of a row: the fields of a kind of trunkline/numbers/resources.py."""


@dataclass(frozen=True, slots=True)
class DeskRows:
    """What of a tenant's desk each of its calls looks at."""

    terms: Columns | None
    matches: Sequence[tuple[str, Sequence[str], str | None]]
    """Of routes that have patterns: name, patterns, trunk."""
    published: Mapping[str, int | None]
    """By agent."""


class NumberRows(Protocol):
    """All methods raise StoreError when the database is away."""

    async def revisions(self) -> Mapping[TenantId, int]:
        """How often each tenant's desk has changed. Empty: there is nothing anywhere."""
        ...

    async def owner_of(self, number: str) -> tuple[TenantId, Columns] | None:
        """Whose number it is: the one question that knows no tenant yet. A number is one tenant's."""
        ...

    async def desk(self, tenant: TenantId) -> DeskRows: ...

    async def route(self, tenant: TenantId, name: str) -> tuple[Columns, Sequence[Columns]] | None:
        """And the opening hours that it names."""
        ...


UsageSink = Callable[[Usage], None]


ON_BEHALF_OF: ContextVar[CallId | None] = ContextVar("on_behalf_of", default=None)
"""The call that the running task works for: for providers whose methods are told of none (Tts.speak)."""


# --- the conversation -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the conversation. `agent` text is what was *heard*, never what was merely generated."""

    role: Literal["caller", "agent", "tool", "summary"]
    """`summary`: what was said before, in short, or what the agent must know beforehand. It stands first."""
    text: str
    keyed: bool = False
    """The caller keyed `text` on the keypad."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    """For role `tool`: which ToolCall this answers."""
    cut: bool = False
    """The caller interrupted here; `text` is what was heard of it."""
    language: str | None = None
    """What the call is held in from here on, where the agent has several: a tag of RFC 5646."""


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What an agent may know of the call it answers."""

    call_id: CallId
    tenant: TenantId
    direction: Direction
    from_number: str | None
    to_number: str | None
    started: datetime
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What else came with the call or its order: a trunk's mapped headers."""
    stir: CallerVerdict | None = None
    """Who vouches for from_number. None: nobody looked."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the agent expects to hear next. The recogniser picks its grammar by it, the turn machine its patience."""

    grammar: str = "main"
    """Name of a grammar of the script: `main`, `digits`, `yes_no`, ..."""
    digits_min: int = 0
    digits_max: int = 0
    """digits_max > 0: the keypad is expected; fewer than digits_min keys are not yet an answer; `#` ends the entry."""


# --- speech to text -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SttPartial:
    text: str
    complete: bool = False
    """The words so far are a whole phrase of the grammar: the end of turn may be taken early."""


@dataclass(frozen=True, slots=True)
class SttFinal:
    """The utterance as understood. `understood=False`: speech, but none of the grammar (text may be a best guess)."""

    text: str
    understood: bool = True
    language: str | None = None
    """What it was spoken in, where the recogniser tells; None also where it was of several."""


@dataclass(frozen=True, slots=True)
class SttFailed:
    error: Exception


SttEvent = SttPartial | SttFinal | SttFailed


class SttStream(Protocol):
    """One call's ears. All methods return at once; results come to `on_event` on the event loop.

    feed... -> SttPartial*; finalize -> exactly one SttFinal or SttFailed for that utterance; feed starts the next.
    """

    def feed(self, audio: bytes) -> None:
        """Speech (with pre-roll) in the stream's format; any length. Never blocks; drops are counted there."""
        ...

    def began(self, ago_ms: int) -> None:
        """The utterance being fed began so long ago, in the audio that was fed: words from before are none of it. Told
        to who is fed everything, when the caller begins to speak."""
        ...

    def expect(self, expectation: Expectation) -> None:
        """Takes effect with the next utterance."""
        ...

    def finalize(self) -> None:
        """The utterance has ended."""
        ...

    def cancel(self) -> None:
        """Forget the utterance being fed: no SttFinal follows of it; those finalized keep theirs. Idempotent."""
        ...

    def close(self) -> None:
        """Idempotent. No event follows."""
        ...


class Stt(Protocol):
    name: str
    feed_mode: Literal["all", "gated"]
    """`gated`: fed only speech with pre-roll, so silence can never become words."""
    third_party: bool
    """Audio leaves this machine: the third_party door is asked first."""
    formats: tuple[Format, ...]
    """Accepted input, preferred first."""

    async def start(self) -> None: ...

    def open(self, call: CallFacts, format: Format, on_event: Callable[[SttEvent], None]) -> SttStream: ...

    async def close(self) -> None: ...


# --- end of turn ----------------------------------------------------------------------------------------------------


class TurnDetector(Protocol):
    """Whether a caller's words are a whole turn: what silence alone does not tell."""

    name: str
    third_party: bool

    async def start(self) -> None: ...

    async def probability(self, text: str, language: str) -> float:
        """That the caller has finished, 0 to 1, given the words so far. Raises ProviderError."""
        ...

    async def close(self) -> None: ...


# --- language model -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class Expect:
    """What the agent will expect once this reply is spoken."""

    expectation: Expectation


@dataclass(frozen=True, slots=True)
class LlmUsage:
    tokens_in: int
    tokens_out: int
    cached_in: int = 0
    """Of tokens_in."""


LlmEvent = TextDelta | ToolCall | Expect | LlmUsage


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model sees it. `effects` tools (hang_up, transfer, send_dtmf, http) never run speculatively."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of the arguments."""
    effects: bool = True


class LlmSession(Protocol):
    """One call's mind."""

    def reply(self, conversation: Sequence[Message], *, understood: bool = True) -> AsyncGenerator[LlmEvent, None]:
        """Answer the conversation's last message (caller or tool). `understood=False`: the caller spoke, but not in
        words the recogniser knows. Closing the generator closes the request. Raises ProviderError."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """Of the agent's; the caller has not answered it."""

    text: str
    """As it is asked again."""
    expectation: Expectation


@runtime_checkable
class ResumingSession(LlmSession, Protocol):
    """It knows by what was said where it was."""

    def left_open(self, conversation: Sequence[Message]) -> OpenQuestion | None:
        """What the agent had asked last in a conversation that began elsewhere, where that still waits for its answer.
        Does not raise."""
        ...


class Llm(Protocol):
    name: str
    third_party: bool

    async def start(self) -> None: ...

    def open(self, call: CallFacts) -> LlmSession: ...

    async def close(self) -> None: ...


# --- text to speech -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Word:
    """A spoken word and where it lies in the utterance's audio."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class TtsAudio:
    """Some audio of the utterance in the asked Format (any length), and the words whose end lies in or before it."""

    data: bytes
    words: tuple[Word, ...] = ()


class Tts(Protocol):
    name: str
    third_party: bool
    word_times: bool
    """Whether TtsAudio carries words; without them what was heard is a conservative estimate, marked so."""

    async def start(self) -> None: ...

    def speak(self, text: str, format: Format) -> AsyncGenerator[TtsAudio, None]:
        """Speak one phrase. Closing the generator cancels the synthesis. Raises ProviderError."""
        ...

    async def close(self) -> None: ...


# --- realtime model -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelOpened:
    """The session is ready, and knows the conversation it was opened with."""

    lasts_s: float | None = None
    """Until the far end ends it; None: it does not say."""


@dataclass(frozen=True, slots=True)
class ModelSpeechStarted:
    """The model's own detector hears the caller. `ago_ms`: so much was sent to it since."""

    ago_ms: int


@dataclass(frozen=True, slots=True)
class ModelSpeechEnded:
    """The caller's turn is over, says the model's own detector: it answers by itself. `ago_ms`: since the last of the
    speech."""

    item: str
    ago_ms: int


@dataclass(frozen=True, slots=True)
class ModelTook:
    """What was committed under this name is an item of the conversation now."""

    utterance: str
    item: str


@dataclass(frozen=True, slots=True)
class TranscriptionUsage:
    """Of one utterance: seconds or tokens, as that model is billed."""

    product: str
    seconds: float = 0.0
    text_in: int = 0
    audio_in: int = 0
    text_out: int = 0


@dataclass(frozen=True, slots=True)
class ModelTranscribed:
    """What the caller said, as a transcriber beside the model understood it. `failed`: it did not."""

    item: str
    text: str
    failed: bool = False
    used: TranscriptionUsage | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """`tag`: of the order that asked for it; empty where the model began by itself."""

    reply: str
    tag: str


@dataclass(frozen=True, slots=True)
class ReplyAudio:
    reply: str
    item: str
    data: bytes
    """In the session's format, any length."""


@dataclass(frozen=True, slots=True)
class ReplyText:
    """More of the words of that item, at or before their audio. `whole`: all of them, in place of what came before."""

    reply: str
    item: str
    text: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class ReplyItemEnded:
    """All audio of that item has come."""

    reply: str
    item: str


@dataclass(frozen=True, slots=True)
class ReplyTool:
    reply: str
    call: ToolCall


@dataclass(frozen=True, slots=True)
class RealtimeUsage:
    """Of one reply. None: not told."""

    text_in: int | None
    text_out: int | None
    audio_in: int | None
    audio_out: int | None
    text_cached: int = 0
    """Of text_in."""
    audio_cached: int = 0
    """Of audio_in."""


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """Nothing more of it comes. `error`: it failed; the session goes on."""

    reply: str
    tag: str
    usage: RealtimeUsage | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class ModelRefused:
    """An order that could not be done: the `tag` of a reply, or the name of an utterance. The session goes on."""

    what: str
    code: str


@dataclass(frozen=True, slots=True)
class ModelLost:
    """The session is over. No event follows."""

    error: Exception


RealtimeEvent = (
    ModelOpened
    | ModelSpeechStarted
    | ModelSpeechEnded
    | ModelTook
    | ModelTranscribed
    | ReplyStarted
    | ReplyAudio
    | ReplyText
    | ReplyItemEnded
    | ReplyTool
    | ReplyEnded
    | ModelRefused
    | ModelLost
)


class RealtimeSession(Protocol):
    """One call's ears, mind and voice in one. All methods return at once; results come to `on_event` on the event loop:
    ModelOpened first (or ModelLost), ModelLost last. Nothing but close() is called before ModelOpened."""

    def hear(self, audio: bytes) -> None:
        """The caller, in the session's format, any length. Never blocks; drops are counted there."""
        ...

    def commit(self, utterance: str) -> None:
        """What was heard since the last commit is the caller's utterance: ModelTook follows, and ModelTranscribed where
        there is a transcriber. The model does not answer before it is asked to."""
        ...

    def clear(self) -> None:
        """Forget what was heard and not committed."""
        ...

    def tell(self, message: Message, audio: bytes = b"") -> None:
        """An entry of the conversation that the model has not heard itself. `audio`: the caller's, in place of text."""
        ...

    def respond(self, tag: str, say: str | None = None) -> None:
        """Answer the conversation; with `say`: speak this line, word for word. ReplyStarted or ModelRefused follows."""
        ...

    def cancel(self, reply: str) -> None:
        """Stop that reply; empty: whichever is under way. ReplyEnded follows where there was one."""
        ...

    def truncate(self, item: str, heard_ms: int) -> None:
        """The caller heard so much of that item: the model forgets the rest of it. 0: all of it."""
        ...

    def forget(self, item: str) -> None:
        """It was a noise."""
        ...

    def close(self) -> None:
        """Idempotent. No event follows."""
        ...


class Realtime(Protocol):
    name: str
    third_party: bool
    formats: tuple[Format, ...]
    transcribes: bool
    """Whether ModelTranscribed follows each utterance."""

    async def start(self) -> None: ...

    def open(
        self,
        call: CallFacts,
        format: Format,
        conversation: Sequence[Message],
        on_event: Callable[[RealtimeEvent], None],
    ) -> RealtimeSession: ...

    async def close(self) -> None: ...


# --- AI agents of the desk ------------------------------------------------------------------------------------------


class AgentVersions(Protocol):
    """Where their scripts are kept. A version never changes; which one is published does."""

    async def text(self, tenant: TenantId, agent: str, version: int) -> str | None:
        """Its script; None: the tenant has no such version. Raises StoreError."""
        ...

    async def published(self, tenant: TenantId, agent: str) -> int | None:
        """The version that answers; None: none, or no such agent. Raises StoreError."""
        ...


# --- call control: what an agent may do to its call -----------------------------------------------------------------


class CallControl(Protocol):
    """Performed by the leg. Each returns at once; the result reaches the record."""

    def hang_up(self, reason: "EndReason") -> None:
        """End the call after what is queued has been heard."""
        ...

    def transfer(self, target: str) -> Decision:
        """To a *named* target of the configuration, never to a number a model wrote."""
        ...

    def hand_off(self, agent: str) -> Decision:
        """To another agent, by its name in this one's file, after what is queued has been heard; void when the caller
        interrupts."""
        ...

    def send_dtmf(self, digits: str) -> None: ...

    def call_back(self) -> Decision:
        """Note that the caller wants to be called back, at the number of this call. Refused: it is not known."""
        ...

    def wished(self, wish: Wish) -> None:
        """The caller asks for this: it is done whatever the agent thinks of it. Idempotent."""
        ...


# --- the call record ------------------------------------------------------------------------------------------------

EndReason = Literal[
    "caller_hung_up",  # the far end ended it (stop, status completed)
    "agent_hung_up",  # the agent's script or model said goodbye
    "opted_out",  # they asked not to be called again; it was confirmed
    "transferred",
    "no_input",  # two prompts, then goodbye
    "max_duration",
    "budget",  # what it may cost was spent
    "media_lost",  # socket loss, or 3 s without media
    "never_started",  # webhook answered, but no media stream came
    "refused",  # a decision said no
    "overloaded",  # admission
    "drained",  # the gateway was stopped and its patience ended
    "gateway_lost",  # the process died; closed by the sweep after restart
    "busy",
    "no_answer",
    "rejected",  # the called party, its network or the trunk said no
    "failed",
    "error",  # our own bug or a provider with no way out
]

EndedBy = Literal[
    "caller",  # the person at the other end, whoever dialled
    "agent",
    "operator",  # somebody with a key to the API or the console
    "network",  # a carrier, a trunk, the way there
    "gateway",
    "policy",  # a rule or a limit that was set
]

ENDED_BY: Mapping[EndReason, EndedBy] = {
    "caller_hung_up": "caller",
    "agent_hung_up": "agent",
    "opted_out": "caller",
    "transferred": "agent",
    "no_input": "agent",
    "max_duration": "policy",
    "budget": "policy",
    "media_lost": "network",
    "never_started": "network",
    "refused": "policy",
    "overloaded": "gateway",
    "drained": "gateway",
    "gateway_lost": "gateway",
    "busy": "network",
    "no_answer": "network",
    "rejected": "network",
    "failed": "network",
    "error": "gateway",
}
"""Who ends a call for this reason, where nobody knows better."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    name: str
    arguments: Mapping[str, Any] = field(repr=False)
    outcome: str
    """`ok`, or the code of what became of it."""


@dataclass(frozen=True, slots=True)
class TurnEvidence:
    """What the audit log tells of a turn beyond its record."""

    prompts: tuple[str, ...] = ()
    """SHA-256 of each request to a model, in order, as its provider says what is hashed; empty where it says none."""
    tools: tuple[ToolUse, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One exchange. Latencies in ms, None where that part did not happen. T0: last frame of caller speech received;
    T1: first agent frame sent."""

    index: int
    caller_text: str
    agent_text: str
    """What was heard of it."""
    understood: bool = True
    keyed: bool = False
    interrupted: bool = False
    heard_exact: bool = True
    """False where the voice gives no word times: agent_text is then a conservative estimate."""
    endpointing_ms: float | None = None
    stt_ms: float | None = None
    llm_ms: float | None = None
    tts_ms: float | None = None
    total_ms: float | None = None
    """T1 - T0."""
    barge_in_ms: float | None = None
    """First frame of the caller's interrupting speech received -> clear sent."""
    tools: tuple[str, ...] = ()
    cut_text: str = ""
    """What the agent would have said on, had it not been interrupted."""
    evidence: TurnEvidence | None = field(default=None, repr=False, compare=False, metadata={"recorded": False})
    """For the audit log; the record has none of it."""

    def without_words(self) -> "TurnRecord":
        """And without what tools were given, which is of what was said."""
        evidence = self.evidence
        if evidence is not None:
            evidence = replace(evidence, tools=tuple(replace(use, arguments={}) for use in evidence.tools))
        return replace(self, caller_text="", agent_text="", cut_text="", evidence=evidence)


@dataclass(frozen=True, slots=True)
class CallStarted:
    call_id: CallId
    tenant: TenantId
    direction: Direction
    leg: Literal["twilio", "sip", "webrtc", "websocket", "livekit"]
    agent: str
    at: datetime
    from_number: str | None = None
    to_number: str | None = None
    provider_call_id: str | None = None
    """Twilio's CallSid, SIP's Call-ID."""


@dataclass(frozen=True, slots=True)
class CallEvent:
    """Anything worth finding later: a state, a decision, a transfer, a drop count. `data`: JSON, no audio."""

    call_id: CallId
    at: datetime
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TurnEnded:
    call_id: CallId
    at: datetime
    turn: TurnRecord


@dataclass(frozen=True, slots=True)
class UsageMetered:
    at: datetime
    usage: Usage
    costs: tuple[Cost, ...] = ()
    """Empty: nobody knew of prices, or it costs nothing."""


@dataclass(frozen=True, slots=True)
class CallEnded:
    """Ends the record, once: a second CallEnded of the same call changes nothing."""

    call_id: CallId
    at: datetime
    reason: EndReason
    detail: str = ""
    by: EndedBy | None = None
    """None: as ENDED_BY says."""
    provider_code: str = ""
    """What the provider said, such as `sip:486;q850:17` (gateway.endings)."""


NAMED = "provider_call_id"
"""Kind of the CallEvent that gives a call of ours the carrier's name for it, told only after it took the order; `data`
holds it as provider_call_id."""
RECORDED = "recorded"
"""... of the one that tells how a recording ended: `data` is a media.recorder.Finished."""

RecordEvent = CallStarted | CallEvent | TurnEnded | UsageMetered | CallEnded


Having = Literal["errors", "refusals", "transfers"]


@dataclass(frozen=True, slots=True)
class CallQuery:
    """Which calls, all of it at once; None or empty: whichever. A number that ends with `*` is the beginning of one."""

    number: str | None = field(default=None, repr=False)
    """Of either party."""
    our_number: str | None = None
    """That was called, or that we called from."""
    agent: str | None = None
    direction: Direction | None = None
    leg: str | None = None
    end_reason: EndReason | None = None
    ended_by: EndedBy | None = None
    live: bool | None = None
    """True: without an end in the record; False: with one."""
    since: datetime | None = None
    """Of `started_at`, inclusive."""
    until: datetime | None = None
    """Exclusive."""
    min_duration_s: float | None = None
    """From its answer to its end."""
    min_cost_usd: Decimal | None = None
    text: str | None = field(default=None, repr=False)
    """Somewhere in what was said, as one piece; upper and lower case are the same."""
    having: frozenset[Having] = frozenset()
    """At least one of each."""


class RecordSink(Protocol):
    def append(self, event: RecordEvent) -> None:
        """Durable against kill -9 when this returns. Never raises for a full or absent disk: counts and retries."""
        ...
