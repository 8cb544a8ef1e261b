"""The `trunkline` command. Every error an admin can mend is one line on stderr and exit status 2."""

import asyncio
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, cast

import typer
from rich.console import Console

from trunkline import (
    __version__,
    ascode,
    auditing,
    calls,
    costs,
    keeping,
    legal,
    numbering,
    people,
    recordings,
    routed,
    training,
)
from trunkline.errors import ConfigError, MissingExtra, PeerError, ProviderError, StoreError
from trunkline.settings import keep_mathematics_single_threaded, load

if TYPE_CHECKING:
    from trunkline.ports import Purpose
    from trunkline.testing.caller.bench import BenchReport

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
agent_app = typer.Typer(no_args_is_help=True, help="Agent scripts.")
bench_app = typer.Typer(no_args_is_help=True, help="The caller in bulk.")
app.add_typer(agent_app, name="agent")
app.add_typer(bench_app, name="bench")
stir_app = typer.Typer(no_args_is_help=True, help="STIR/SHAKEN: verify and sign Identity headers.")
app.add_typer(stir_app, name="stir")
app.add_typer(legal.app, name="compliance")
app.add_typer(keeping.privacy_app, name="privacy")
app.add_typer(keeping.keys_app, name="keys")
app.add_typer(recordings.app, name="recordings")
app.add_typer(training.app, name="export")
app.add_typer(costs.app, name="costs")
app.add_typer(numbering.app, name="numbers")
numbering.app.command("route")(routed.route)
app.add_typer(calls.app, name="calls")
app.add_typer(auditing.app, name="audit")
app.command("apply")(ascode.apply)
app.add_typer(people.users_app, name="users")
app.add_typer(people.api_keys_app, name="api-keys")
device_app = typer.Typer(help="The reference device: listens here for its wake word, and sends audio only after it.")
app.add_typer(device_app, name="device")

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: trunkline.toml).")]
AsJson = Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")]
Token = Annotated[str, typer.Option("--auth-token", help="Twilio auth token: signs the webhooks.")]
ApiKey = Annotated[str, typer.Option("--api-key", help="For GET /v1/calls: what the agent understood and said.")]
SipAuth = Annotated[str, typer.Option("--auth", help="SIP: USER:PASSWORD, where the far end asks for them.")]
Codec = Annotated[list[str] | None, typer.Option(help="SIP: pcmu or pcma, by preference. Repeatable.")]
CaFile = Annotated[Path | None, typer.Option(help="SIP over TLS: whose certificates are trusted.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="TLS: any certificate will do.")]
LateOffer = Annotated[bool, typer.Option("--late-offer", help="SIP: the INVITE carries no SDP.")]
Api = Annotated[
    str, typer.Option("--api", help="Origin of GET /v1/calls (SIP: http://HOST:8080), if not the target's.")
]
# Of every bench.
Calls = Annotated[int, typer.Option(help="At once.")]
Seconds = Annotated[float, typer.Option(help="Measured, after the warm-up.")]
BargeIn = Annotated[float, typer.Option(help="Share of answers that are interrupted.")]
Heard = Annotated[bool, typer.Option(help="Compare what the agent believes was heard with what was played.")]
Silent = Annotated[bool, typer.Option("--silent", help="Nobody speaks: the calls are held up, audio flows.")]
Audio = Annotated[Literal["mulaw", "pcm16-8k", "pcm16-16k"], typer.Option(help="WebSocket: the format.")]
Pid = Annotated[int, typer.Option(help="Of the gateway, for its CPU and memory (default: found by its port).")]
Seed = Annotated[int, typer.Option(help="Of who interrupts, and when.")]

_argv: list[str] = []  # as given: --say, --wav and --dtmf act in their order, which typer does not keep


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


@app.command()
def serve(config: Config = None) -> None:
    """Answer calls until SIGTERM: new ones then go to the fallback, live ones may finish."""
    keep_mathematics_single_threaded()
    settings = load(config)
    from trunkline.app import Gateway, configure_logs
    from trunkline.app import serve as run
    from trunkline.logs import catch_strays

    configure_logs(settings)
    catch_strays()

    def ready(gateway: Gateway) -> None:
        origin = settings.http.origin
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"[bold]Trunkline {__version__}[/] answers at {origin} as [bold]{gateway.agent.name}[/].")
        console.print(f"  Call it from another shell:  trunkline call {origin}/twilio/voice   (or: make call)")
        console.print(f"  Over SIP:                    {gateway.sip.about}")
        console.print(f"  Over WebRTC:                 {gateway.webrtc.about}")
        console.print(f"  What happened:               {origin}/v1/calls")
        if gateway.setup_link is not None:
            console.print(f"  Make the first admin (1 h):  {gateway.setup_link}")
        console.print("  Stop with Ctrl-C: calls in progress may finish.")
        if settings.http.public_url:
            console.print(f"  Twilio number, voice webhook: POST {origin}/twilio/voice")

    _run(run(settings, ready))


@app.command()
def serve_models(
    agent: Annotated[
        Path | None, typer.Option("--agent", help="The agent file whose providers are served (default: settings' own).")
    ] = None,
    config: Config = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one.", min=0, max=65535)] = 50051,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM: the server's certificate and those above it.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM: its key.")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="PEM: clients must show a certificate of these.")] = None,
) -> None:
    """Serve an agent's ears, mind and voice over gRPC to gateways that name them as `remote`, until SIGTERM."""
    keep_mathematics_single_threaded()
    settings = load(config)
    from trunkline.agents.remote.host import Bind, serve_models
    from trunkline.app import configure_logs, load_agent

    configure_logs(settings)
    definition = load_agent(settings.model_copy(update={"agent": agent}) if agent else settings)
    bind = Bind(host, port, tls_cert, tls_key, tls_client_ca)

    def ready(port: int) -> None:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"[bold]Trunkline {__version__}[/] serves the models of [bold]{definition.name}[/] at {host}:{port} (gRPC)."
        )

    _run(serve_models(settings, definition, bind, ready))


@app.command()
def call(
    target: Annotated[
        str,
        typer.Argument(
            help="The voice webhook: http(s)://HOST/twilio/voice, or just the origin. Or sip:NUMBER@HOST:PORT"
            ";transport=udp|tcp|tls, or sips:. Or whip:http(s)://HOST/whip. Or ws(s)://HOST/ws/audio."
        ),
    ],
    say: Annotated[list[str] | None, typer.Option(help="Say this, when the agent has finished. Repeatable.")] = None,
    wav: Annotated[list[Path] | None, typer.Option(help="Say what is in this file. Repeatable.")] = None,
    dtmf: Annotated[list[str] | None, typer.Option(help="Key these digits. Repeatable.")] = None,
    barge_in_after: Annotated[
        list[int] | None, typer.Option(help="Say the next thing so many ms into the answer before it.")
    ] = None,
    script: Annotated[Path | None, typer.Option(help="A caller script instead: one step a line.")] = None,
    out: Annotated[Path | None, typer.Option(help="Stereo WAV: left the caller, right what was heard.")] = None,
    voice: Annotated[str, typer.Option(help="The caller's espeak-ng voice.")] = "en-us",
    noise_dbfs: Annotated[float | None, typer.Option(help="Line noise, such as -50.")] = None,
    echo_db: Annotated[
        float | None, typer.Option(help="The agent's voice comes back at this level, such as -15.")
    ] = None,
    echo_delay_ms: Annotated[int, typer.Option(help="... this late.")] = 200,
    from_number: Annotated[str, typer.Option("--from", help="The caller's number.")] = "+15005550006",
    to_number: Annotated[str, typer.Option("--to", help="The number that was dialled.")] = "+15005550001",
    auth_token: Token = "",
    public_url: Annotated[str, typer.Option(help="Origin that signatures are made for, if not the target's.")] = "",
    auth: SipAuth = "",
    codec: Codec = None,
    header: Annotated[list[str] | None, typer.Option(help='SIP: "Name: value" more in the INVITE. Repeatable.')] = None,
    dtmf_info: Annotated[bool, typer.Option("--dtmf-info", help="SIP: digits as INFO, not as RFC 4733.")] = False,
    late_offer: LateOffer = False,
    cancel_after: Annotated[
        int | None, typer.Option(help="SIP: stop ringing so many ms after the INVITE, if not answered.")
    ] = None,
    ca_file: CaFile = None,
    join_token: Annotated[str, typer.Option(help="WHIP, WebSocket: of the session.")] = "",
    audio: Audio = "mulaw",
    insecure: Insecure = False,
    api: Api = "auto",
    api_key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Place a test call exactly as Twilio would (signed webhook, TwiML, Media Streams in real time), over SIP, or
    as a browser (WHIP) or a device (WebSocket) does."""
    from trunkline.testing.caller import commands as caller

    actions = caller.parse_script(_read(script) if script else _steps(_argv))
    options = caller.CallOptions(
        target=target,
        actions=actions,
        from_number=from_number,
        to_number=to_number,
        auth_token=auth_token,
        public_url=public_url,
        voice=voice,
        noise_dbfs=noise_dbfs,
        echo_db=echo_db,
        echo_delay_ms=echo_delay_ms,
        out=out,
        api_url=api,
        api_key=api_key,
        verify_tls=not insecure,
        join_token=join_token,
        audio=audio,
        sip=caller.sip_options(
            auth,
            codec or [],
            header or [],
            ca_file,
            dtmf="info" if dtmf_info else "rfc4733",
            late_offer=late_offer,
            cancel_after_ms=cancel_after,
        ),
    )
    console = Console(highlight=False)
    live = None if as_json else (lambda event, at: caller.render_event(event, at, console))
    report = _run(caller.place_call(options, on_event=live))
    if as_json:
        typer.echo(caller.to_json(report))
    else:
        caller.render_call(report, console)
    raise typer.Exit(0 if report.ok else 1)


def _read(path: Path, option: str = "--script") -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(option, str(path), f"a readable text file ({error})") from error


def _steps(argv: Sequence[str]) -> str:
    """`--say X`, `--wav X`, `--dtmf X` and `--barge-in-after X` in their order, as a caller script."""
    steps: list[str] = []
    barge = ""
    arguments = iter(argv)
    for argument in arguments:
        name, separator, value = argument.partition("=")
        verb = {"--say": "say", "--wav": "wav", "--dtmf": "keys", "--barge-in-after": "barge"}.get(name)
        if verb is None:
            continue
        value = " ".join((value if separator else next(arguments, "")).split())
        if verb == "barge":
            barge = f"barge {value} "
        else:
            steps.append(f"{barge}{verb} {value}")
            barge = ""
    if barge and steps:  # given last: it is the last thing said that interrupts
        steps[-1] = barge + steps[-1]
    return "\n".join(steps) or "listen\nhangup"


def _bench(running: Coroutine[Any, Any, "BenchReport"], as_json: bool) -> NoReturn:
    from trunkline.testing.caller import commands as caller

    report = _run(running)
    typer.echo(caller.to_json(report)) if as_json else caller.render_bench(report, Console(highlight=False))
    raise typer.Exit(0 if report.ok else 1)


@bench_app.command("twilio")
def bench_twilio(
    target: Annotated[str, typer.Argument(help="The voice webhook of a gateway with bench/standin.toml.")],
    calls: Calls = 50,
    seconds: Seconds = 30.0,
    pid: Pid = 0,
    barge_in: BargeIn = 0.3,
    heard: Heard = False,
    auth_token: Token = "",
    api_key: ApiKey = "",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Many calls at once, with the rig's own lateness, and the gateway's CPU and memory per call."""
    from trunkline.testing.caller import commands as caller

    options = caller.BenchOptions(
        target=caller.voice_url(target),
        calls=calls,
        duration_s=seconds,
        pid=pid or None,
        interrupt_share=barge_in,
        heard=heard,
        auth_token=auth_token,
        api_key=api_key,
        seed=seed,
    )
    _bench(caller.bench_twilio(options), as_json)


@app.command()
def dial(
    number: Annotated[str, typer.Argument(help="Whom: +COUNTRY NUMBER, such as +14155550100.")],
    from_number: Annotated[str, typer.Option("--from", help="Caller id (default: the trunk's).")] = "",
    trunk: Annotated[str, typer.Option(help="Over this trunk (default: the first that can).")] = "",
    ring_timeout_s: Annotated[float, typer.Option(help="How long it may ring.")] = 30.0,
    purpose: Annotated[
        str, typer.Option(help="marketing, transactional or informational (default: as the gateway is set).")
    ] = "",
    gateway: Annotated[str, typer.Option(help="Origin of the running gateway.")] = "http://127.0.0.1:8080",
    api_key: Annotated[str, typer.Option(help="One of the gateway's http.api_key, where it has any.")] = "",
    wait: Annotated[bool, typer.Option(help="Follow the call until it ends; Ctrl-C hangs up.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The call's record as JSON on stdout.")] = False,
) -> None:
    """Have the running gateway call a number. Exit status 0 when it was answered, 1 when not, 2 when it was refused."""
    import json

    from trunkline.gateway.api import client
    from trunkline.gateway.dialling import DialOrder
    from trunkline.types import E164

    order = DialOrder(
        to_number=E164(_plain(number)),
        from_number=E164(_plain(from_number)) if from_number else None,
        trunk=trunk or None,
        ring_timeout_s=ring_timeout_s,
        purpose=_purpose(purpose),
    )
    console = Console(highlight=False, markup=False, soft_wrap=True)

    def show(step: client.Step) -> None:
        if not as_json:
            console.print(f"{step.at_s:7.1f} s  {step.what}")

    try:
        outcome = _run(client.dial(order, gateway, api_key, show, wait=wait))
    except PeerError as error:
        typer.echo(f"trunkline: {error}", err=True)
        raise typer.Exit(1) from error
    if isinstance(outcome, client.Refused):
        typer.echo(f"trunkline: {outcome}", err=True)
        raise typer.Exit(2)
    if as_json or not wait:
        typer.echo(json.dumps(outcome) if as_json else outcome["id"])
    raise typer.Exit(0 if client.answered(outcome) or not wait else 1)


def _purpose(text: str) -> "Purpose | None":
    from typing import get_args

    from trunkline.ports import Purpose

    if text and text not in get_args(Purpose):
        raise ConfigError("--purpose", text, "marketing, transactional or informational")
    return cast(Purpose, text) if text else None


def _plain(number: str) -> str:
    """Without what people write between digits."""
    return number.translate(str.maketrans("", "", " -.()"))


@bench_app.command("sip")
def bench_sip(
    target: Annotated[str, typer.Argument(help="sip:[NUMBER@]HOST[:PORT][;transport=udp|tcp|tls], or sips:.")],
    calls: Calls = 50,
    seconds: Seconds = 30.0,
    cps: Annotated[float, typer.Option(help="Calls started a second (default: all within 4 s).")] = 0.0,
    hold_ms: Annotated[
        int, typer.Option(help="Measure set-ups instead: --cps of them a second, each hung up after so long.")
    ] = -1,
    silent: Silent = False,
    barge_in: BargeIn = 0.3,
    heard: Heard = False,
    pid: Pid = 0,
    from_number: Annotated[str, typer.Option("--from", help="The callers' number.")] = "+15005550006",
    to_number: Annotated[str, typer.Option("--to", help="Dialled, where the target names nobody.")] = "+15005550001",
    auth: SipAuth = "",
    codec: Codec = None,
    late_offer: LateOffer = False,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    api: Api = "",
    api_key: ApiKey = "",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Many SIP calls at once: as `bench twilio`, with set-up times, packet loss and the wire's pace."""
    from trunkline.testing.caller import commands as caller

    sip = caller.sip_options(auth, codec or [], [], ca_file, late_offer=late_offer)
    console = Console(highlight=False)
    if hold_ms >= 0:
        setups = caller.SetupOptions(
            target,
            per_s=cps or 100.0,
            seconds=seconds,
            hold_ms=hold_ms,
            pid=pid or None,
            api_url=api,
            verify_tls=not insecure,
            sip=sip,
            from_number=from_number,
            to_number=to_number,
        )
        done = _run(caller.bench_setups(setups))
        typer.echo(caller.to_json(done)) if as_json else caller.render_setups(done, console)
        raise typer.Exit(0 if done.ok else 1)
    options = caller.BenchOptions(
        target,
        calls=calls,
        duration_s=seconds,
        spread_s=calls / cps if cps > 0 else 4.0,
        silent=silent,
        interrupt_share=barge_in,
        heard=heard,
        pid=pid or None,
        api_url=api,
        api_key=api_key,
        seed=seed,
        verify_tls=not insecure,
        sip=sip,
        from_number=from_number,
        to_number=to_number,
    )
    _bench(caller.bench_sip(options), as_json)


@bench_app.command("webrtc")
def bench_webrtc(
    target: Annotated[str, typer.Argument(help="http(s)://HOST/whip, or just the origin.")],
    calls: Calls = 20,
    seconds: Seconds = 30.0,
    silent: Silent = False,
    barge_in: BargeIn = 0.3,
    heard: Heard = False,
    pid: Pid = 0,
    insecure: Insecure = False,
    api: Api = "",
    api_key: ApiKey = "",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Many WebRTC calls at once: as `bench twilio`. A caller costs this process about 2 % of a core."""
    from trunkline.testing.caller import commands as caller

    options = caller.BenchOptions(
        target,
        calls=calls,
        duration_s=seconds,
        silent=silent,
        interrupt_share=barge_in,
        heard=heard,
        pid=pid or None,
        api_url=api,
        api_key=api_key,
        seed=seed,
        verify_tls=not insecure,
    )
    _bench(caller.bench_webrtc(options), as_json)


@bench_app.command("ws")
def bench_ws(
    target: Annotated[str, typer.Argument(help="ws(s)://HOST/ws/audio, or just the origin.")],
    calls: Calls = 50,
    seconds: Seconds = 30.0,
    audio: Audio = "mulaw",
    silent: Silent = False,
    barge_in: BargeIn = 0.3,
    heard: Heard = False,
    pid: Pid = 0,
    api: Api = "",
    api_key: ApiKey = "",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Many devices' WebSockets at once: as `bench twilio`."""
    from trunkline.testing.caller import commands as caller

    options = caller.BenchOptions(
        target,
        calls=calls,
        duration_s=seconds,
        silent=silent,
        interrupt_share=barge_in,
        heard=heard,
        pid=pid or None,
        api_url=api,
        api_key=api_key,
        seed=seed,
    )
    _bench(caller.bench_ws(options, audio), as_json)


@app.command()
def drill(
    config: Config = None,
    agent: Annotated[
        Path | None, typer.Option("--agent", help="The agent's TOML file (default: the settings').")
    ] = None,
    say: Annotated[str, typer.Option("--say", help="What the caller asks (default: the agent's first phrase).")] = "",
    only: Annotated[list[str] | None, typer.Option(help="stt, llm, tts or a provider's key. Repeatable.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Of the faults, only this. Repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have each provider of the agent fail on a live test call: what does the caller hear? Exit status 1 for a silence
    over 2 s, or a word lost or repeated, where another provider was left."""
    keep_mathematics_single_threaded()
    settings = load(config)
    if agent is not None:
        settings = settings.model_copy(update={"agent": agent})
    from typing import cast

    from trunkline.app import configure_logs
    from trunkline.testing import drill as drills
    from trunkline.testing.faults import FAULTS

    for name in fault or ():
        if name not in FAULTS:
            raise ConfigError("--fault", name, f"one of {', '.join(FAULTS)}")
    configure_logs(settings)
    console = Console(highlight=False, stderr=True)
    faults = cast(Any, tuple(fault or FAULTS))
    options = drills.DrillOptions(say, tuple(only or ()), faults)

    def tell(done: drills.Drill) -> None:
        if not as_json:
            console.print(
                f"[dim]{done.provider or 'rehearsal'} {done.fault or ''}: {', '.join(done.switches) or '-'}[/]"
            )

    done = _run(drills.drill(settings, options, tell))
    typer.echo(drills.to_json(done)) if as_json else drills.render(done, Console(highlight=False))
    raise typer.Exit(0 if drills.well(done) else 1)


@app.command()
def doctor(config: Config = None, as_json: AsJson = False) -> None:
    """Look at settings, ports, PJSIP, database, disk and each provider of the agent. Exit status 1 for an error."""
    import json
    from dataclasses import asdict

    keep_mathematics_single_threaded()
    settings = load(config)
    from trunkline import doctor as doctors
    from trunkline.app import configure_logs

    configure_logs(settings)
    console = Console(highlight=False, markup=False, soft_wrap=True)

    def tell(finding: doctors.Finding) -> None:
        if not as_json:
            took = f" ({finding.took_ms} ms)" if finding.took_ms is not None else ""
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            console.print(f"{finding.verdict:8}{finding.check}: {finding.detail}{took}{remedy}")

    findings = _run(doctors.examine(settings, tell=tell))
    if as_json:
        typer.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
    raise typer.Exit(1 if any(finding.verdict == "error" for finding in findings) else 0)


@agent_app.command("check")
def agent_check(file: Annotated[Path, typer.Argument(help="The agent's TOML file.")], as_json: AsJson = False) -> None:
    """Explain the mistakes of an agent script, by line. Exit status 1 when there is an error."""
    import json
    from dataclasses import asdict

    from trunkline.agents.script import check

    problems = check(file)
    if as_json:
        typer.echo(json.dumps({"problems": [asdict(p) for p in problems]}))
    else:
        for problem in problems:
            typer.echo(f"{problem.file or file}: {problem}")
        if not problems:
            typer.echo(f"{file}: no mistakes found")
    raise typer.Exit(1 if any(p.severity == "error" for p in problems) else 0)


From = Annotated[str, typer.Option("--from", help="The caller, as signalling has it: a number or a sip: URI.")]
To = Annotated[str, typer.Option("--to", help="The called.")]
At = Annotated[int | None, typer.Option("--at", help="Unix seconds (default: now).")]
Cert = Annotated[
    list[str], typer.Option("--cert", help="The signer's chain, PEM, leaf first; URL=FILE for one of several. Repeat.")
]
Trust = Annotated[list[Path] | None, typer.Option("--trust", help="Trust anchors: a PEM file or a folder. Repeatable.")]


@stir_app.command("verify")
def stir_verify(
    identity: Annotated[list[str], typer.Option("--identity", help="The Identity header's value. Repeatable.")],
    from_: From,
    to: To,
    cert: Cert = [],  # noqa: B006
    trust: Trust = None,
    at: At = None,
) -> None:
    """Judge a call's Identity headers, as JSON. Exit status 0 only when the verdict is `passed`."""
    from trunkline.compliance.stir import commands

    certificates, anchors = commands.read_certificates(cert), commands.read_trust(trust or ())
    _say(commands.verified(identity, certificates, anchors, from_, to, _moment(at)))


@stir_app.command("sign")
def stir_sign(
    key: Annotated[Path, typer.Option("--key", help="The private key, PEM, P-256.")],
    x5u: Annotated[str, typer.Option("--x5u", help="Where its certificate is fetched.")],
    attest: Annotated[str, typer.Option("--attest", help="A, B or C.")],
    from_: From,
    to: To,
    at: At = None,
) -> None:
    """An Identity header (ppt shaken) for a call, as JSON: {"identity": ...}."""
    from uuid import uuid4

    from trunkline.compliance.stir import commands

    _say(commands.signed(key, x5u, attest, from_, to, _moment(at), uuid4()))


@stir_app.command("chain")
def stir_chain(cert: Cert, trust: Trust = None, at: At = None) -> None:
    """What a signer's certificate chain entitles to, as JSON. Exit status 0 only when it leads to a trust anchor."""
    from trunkline.compliance.stir import commands

    chain, anchors = commands.read_chain(cert), commands.read_trust(trust or ())
    _say(commands.looked_at(chain, anchors, _moment(at)))


def _moment(at: int | None) -> Any:
    from datetime import UTC, datetime

    from trunkline.clock import SYSTEM_CLOCK

    try:
        return SYSTEM_CLOCK.wall() if at is None else datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        raise ConfigError("--at", at, "seconds since 1970") from None


def _say(found: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(found))
    raise typer.Exit(0 if found.get("verdict", "passed") == "passed" else 1)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@device_app.callback(invoke_without_command=True)
def device(
    context: typer.Context,
    gateway: Annotated[str, typer.Option(help="Origin of the gateway.")] = "http://127.0.0.1:8080",
    token: Annotated[str, typer.Option(help="A join token, for the first time.")] = "",
    api_key_file: Annotated[
        Path | None, typer.Option(help="Ask for sessions ourselves, with the key in this file.")
    ] = None,
    device_id: Annotated[str, typer.Option(help="... as this device")] = "",
    account_id: Annotated[str, typer.Option(help="... of this account")] = "",
    agent: Annotated[str, typer.Option(help="... to this agent (default: the gateway's first).")] = "",
    wake_word: Annotated[str, typer.Option(help="English words.")] = "hey trunkline",
    threshold: Annotated[
        float | None, typer.Option(help="How sure it must be: smaller hears more, also what was not said.")
    ] = None,
    detector: Annotated[
        str, typer.Option(help="An entry point of trunkline.wakewords, or package.module:factory.")
    ] = "pocketsphinx",
    ear: Annotated[
        Path | None, typer.Option("--in", help="A WAV file in real time, or -: 16 kHz PCM (default: the microphone).")
    ] = None,
    mouth: Annotated[
        Path | None, typer.Option("--out", help="A WAV file, or -: 16 kHz PCM (default: the loudspeaker).")
    ] = None,
    card: Annotated[str | None, typer.Option(help="The sound card's name (default: the system's).")] = None,
    offline_agent: Annotated[
        Path | None, typer.Option(help="The agent file that answers where there is no gateway (default: ours).")
    ] = None,
    noise_suppression: Annotated[
        bool, typer.Option("--noise-suppression", help="For speakerphones: RNNoise, 32 ms later.")
    ] = False,
    half_duplex: Annotated[
        bool, typer.Option("--half-duplex", help="Deaf while the agent speaks: where its echo interrupts it.")
    ] = False,
    quiet_s: Annotated[float, typer.Option(help="Nobody speaks for so long: back to sleep.")] = 6.0,
    as_json: AsJson = False,
) -> None:
    """Be a device, until Ctrl-C or the end of --in. On a terminal, Enter is its button."""
    if context.invoked_subcommand is not None:
        return
    keep_mathematics_single_threaded()
    from trunkline.device import commands as dev

    key = _read(api_key_file, "--api-key-file").strip() if api_key_file else ""
    way = dev.Gateway(gateway.rstrip("/"), device_id, account_id, agent, key)
    options = dev.DeviceOptions(
        way,
        token or None,
        wake_word,
        dev.DEFAULT_THRESHOLD if threshold is None else threshold,
        detector,
        ear,
        mouth,
        card,
        offline_agent,
        noise_suppression,
        dev.Terms(quiet_s, half_duplex, way.asks),
    )
    line = dev.as_json if as_json else dev.as_line
    stats = _run(dev.run_device(options, lambda at_s, told: typer.echo(line(at_s, told), err=mouth == Path("-"))))
    if as_json:
        typer.echo(dev.stats_json(stats), err=mouth == Path("-"))


@device_app.command("check-wake-word")
def check_wake_word(
    files: Annotated[list[Path], typer.Argument(help="WAV files of speech without the wake word.")],
    wake_word: Annotated[str, typer.Option(help="English words.")] = "hey trunkline",
    threshold: Annotated[list[float] | None, typer.Option(help="Repeatable (default: ours).")] = None,
) -> None:
    """How often a wake word is found where espeak-ng says it, and how often in recordings where nobody does."""
    from trunkline.device import quality

    typer.echo(quality.HEAD)
    for each in threshold or [quality.DEFAULT_THRESHOLD]:
        typer.echo(quality.render([quality.measured(wake_word, each, files)]))


def main(argv: Sequence[str] | None = None) -> None:
    _argv[:] = sys.argv[1:] if argv is None else argv
    try:
        app(args=_argv)
    except (ConfigError, MissingExtra, PeerError, StoreError, ProviderError) as error:
        for line in str(error).splitlines():
            print(f"trunkline: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
