import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from tests.e2e.redis_server import redis_server
from tests.fakes.s3_server import KEY_ID, SECRET, S3Server
from trunkline.app import Gateway, gateway, listen, serve
from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ConfigError, StoreError
from trunkline.gateway.joining import Joining
from trunkline.keeping import opened
from trunkline.media.recorder import Recorder
from trunkline.media.vad import SileroBatch
from trunkline.ports import Allow, CallEnded, CallStarted, Facts, Refuse, TurnEnded, TurnRecord
from trunkline.settings import Settings
from trunkline.store.audit import bucket
from trunkline.store.audit.bucket import Access, Bucket
from trunkline.store.audit.files import Custody
from trunkline.store.audit.folder import AuditFolder
from trunkline.store.records import CallRecords
from trunkline.store.subjects import files_with
from trunkline.testing.ports import lease
from trunkline.types import DEFAULT_TENANT, CallId

ROOT = Path(__file__).parents[1]
AGENT = ROOT / "bench" / "standin.toml"


def settings(folder: Path, **changes: Any) -> Settings:
    port = lease()
    given: dict[str, Any] = {"agent": AGENT, "data_dir": folder, "http": {"port": port}, "sip": {"enabled": False}}
    return Settings(**(given | changes))


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario)


def open_files() -> Counter[str]:
    """What this process holds open: files by path, sockets and pipes by how many."""
    found: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[os.readlink(f"/proc/self/fd/{fd}").partition("[")[0]] += 1
    return found


async def warm_up() -> None:
    """What libraries open once, for good: onnxruntime with the first model, uvloop with the first signal handler."""
    SileroBatch(1)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


def test_a_gateway_starts_answers_and_leaves_nothing_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(warm_up())
    chosen = settings(tmp_path)
    threads = set(threading.enumerate())
    before = open_files()
    files: set[str] = set()
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    async def scenario() -> None:
        up = asyncio.Event()
        alive: list[Gateway] = []

        def ready(running: Gateway) -> None:
            alive.append(running)
            up.set()

        serving = asyncio.create_task(serve(chosen, ready))
        await asyncio.wait_for(up.wait(), 20)
        async with httpx.AsyncClient(base_url=chosen.http.origin) as http:
            assert (await http.get("/readyz")).json() == {"ready": True, "reasons": []}
            form = {"CallSid": "CA" + "1" * 32, "From": "+15005550006", "To": "+15005550001", "CallStatus": "ringing"}
            assert "<Stream" in (await http.post("/twilio/voice", data=form)).text
        assert alive[0].switchboard.live_calls == 1
        files.update(open_files())
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)  # the call that never came is not waited for
        await asyncio.wait_for(serving, 20)
        assert alive[0].switchboard.live_calls == 0
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", chosen.http.port)

    run(scenario())
    deadline = 50
    while set(threading.enumerate()) - threads and deadline:
        threading.Event().wait(0.05)  # executors' threads end with their loop
        deadline -= 1
    assert set(threading.enumerate()) - threads == set()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert open_files() - before == Counter()
    assert [name for name in files if str(tmp_path) in name], "the test saw no open file at all"
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert (tmp_path / "trunkline.db").exists()


@pytest.mark.parametrize(
    ("sip", "said"),
    [({"enabled": False}, "SIP is off"), ({}, "no SIP: PJSIP is not installed (make pjsip)")],
)
def test_without_sip_a_gateway_says_why(
    sip: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with gateway(settings(tmp_path, sip=sip)) as running:
            assert running.sip.about.startswith(said)

    _without_pjsip(monkeypatch)
    run(scenario())


@pytest.mark.parametrize("sip", [{"enabled": True}, {"trunks": {"pbx": {"peers": ["127.0.0.1"]}}}])
def test_sip_that_was_asked_for_and_cannot_be_is_an_error_with_the_remedy(
    sip: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="make pjsip"):
            async with gateway(settings(tmp_path, sip=sip)):
                pass
        assert asyncio.all_tasks() == {asyncio.current_task()}

    _without_pjsip(monkeypatch)
    run(scenario())


def _without_pjsip(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pjsua2", "trunkline.gateway.sip.pjsip"):
        monkeypatch.setitem(sys.modules, name, None)


def test_a_second_life_in_the_same_folder(tmp_path: Path) -> None:
    async def scenario() -> None:
        for _ in range(2):
            async with gateway(settings(tmp_path)) as running:
                assert running.agent.name == "standin"
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


def test_a_folder_in_use_is_an_error_that_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with gateway(settings(tmp_path)):
            before = asyncio.all_tasks()
            with pytest.raises(StoreError) as refusal:
                async with gateway(settings(tmp_path)):
                    pass
            assert len(str(refusal.value).splitlines()) == 1
            assert asyncio.all_tasks() == before

    run(scenario())


@pytest.mark.parametrize("bad", ["a file", "missing parent", "read-only"])
def test_a_data_folder_we_cannot_write_to(bad: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    if bad == "a file":
        folder.write_text("")
    elif bad == "missing parent":
        (tmp_path / "file").write_text("")
        folder = tmp_path / "file" / "data"
    else:
        folder = Path("/proc/sys/kernel")  # for root, too

    async def scenario() -> None:
        with pytest.raises(ConfigError) as refusal:
            async with gateway(settings(folder)):
                pass
        assert refusal.value.key == "data_dir"
        assert len(str(refusal.value).splitlines()) == 1

    run(scenario())


def test_an_agent_that_calls_are_handed_to_may_be_away_at_start_and_so_may_a_summariser(tmp_path: Path) -> None:
    far = f'provider = "remote"\ntargets = ["127.0.0.1:{lease()}"]\nfirst_ms = 500'
    (tmp_path / "billing.toml").write_text(
        f'name = "Billing"\ngreeting = "Hello."\n[stt]\nprovider = "standin"\n[tts]\nprovider = "standin"\n[llm]\n{far}'
    )
    own = tmp_path / "mine.toml"
    own.write_text(
        AGENT.read_text()
        + f"""
[agents.billing]
file = "billing.toml"
when = "invoices"
[context]
[context.llm]
{far}
"""
    )

    async def scenario() -> None:
        async with gateway(settings(tmp_path / "data", agent=own)) as running:
            assert running.switchboard.agent.ready()
            [other] = [each for each in running.switchboard.agents.values() if each.definition.name == "Billing"]
            assert not other.ready()
            app = httpx.ASGITransport(running.http)
            async with httpx.AsyncClient(transport=app, base_url="http://127.0.0.1") as http:
                rows = (await http.get("/v1/providers")).json()["providers"]
            states = {row["provider"]: row["state"] for row in rows}
            assert states["context.remote"] == states["billing/llm.remote"] == "open"

    run(scenario())


def test_a_taken_port_is_told_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="this one is taken"):
            run(serve(settings(tmp_path / "data", http={"port": port})))
    assert not (tmp_path / "data").exists()


def test_two_gateways_cannot_share_a_port(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    with listen(chosen), pytest.raises(ConfigError, match="this one is taken"):
        listen(chosen)


def test_a_damaged_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "trunkline.db").write_bytes(b"not a database at all" * 100)

    async def scenario() -> None:
        with pytest.raises(StoreError) as refusal:
            async with gateway(settings(tmp_path)):
                pass
        assert len(str(refusal.value).splitlines()) == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


def test_ipv6_loopback_can_be_bound(tmp_path: Path) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as sock:
            port = sock.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6 here")
    with listen(settings(tmp_path, http={"host": "::1", "port": port})) as sock:
        assert sock.getsockname()[1] == port


def test_every_agent_that_calls_may_be_handed_to_is_built_once_and_started(tmp_path: Path) -> None:
    one = AGENT.read_text(encoding="utf-8")
    (tmp_path / "one.toml").write_text(f'{one}\n[agents.two]\nfile = "two.toml"\nwhen = "x"\n')
    (tmp_path / "two.toml").write_text(f'{one}\n[agents.one]\nfile = "one.toml"\nwhen = "x"\n')

    async def scenario() -> None:
        async with gateway(settings(tmp_path, agent=tmp_path / "one.toml")) as running:
            agents = running.switchboard.agents
            assert [Path(file).name for file in agents] == ["one.toml", "two.toml"]
            first, second = agents.values()
            assert running.switchboard.agent is first
            assert second.definition.agents["one"].file in agents
            assert first.minds.tts is not second.minds.tts
            assert len(second.minds.tts._speech) > 0  # type: ignore[attr-defined]

    run(scenario())


def test_an_agents_file_that_is_wrong_is_one_line_at_start(tmp_path: Path) -> None:
    one = AGENT.read_text(encoding="utf-8")
    (tmp_path / "one.toml").write_text(f'{one}\n[agents.two]\nfile = "two.toml"\nwhen = "x"\n')
    (tmp_path / "two.toml").write_text('name = "Two"\n')

    async def scenario() -> None:
        async with gateway(settings(tmp_path, agent=tmp_path / "one.toml")):
            raise AssertionError("it must not start")

    with pytest.raises(ConfigError, match=r"two\.toml:1"):
        run(scenario())


def test_a_device_may_join_also_after_a_restart_and_without_redis(tmp_path: Path) -> None:
    """Its token is still signed by us; its session went with the process, and that is what it is told."""

    async def opened(chosen: Settings) -> tuple[str, str]:
        async with gateway(chosen) as running:
            transport = httpx.ASGITransport(running.http)
            async with httpx.AsyncClient(transport=transport, base_url=chosen.http.origin) as http:
                answer = await http.post("/v1/session", json={"device_id": "kitchen", "account_id": "ann"})
                assert answer.status_code == 201, answer.text
                hint = await http.get("/v1/routing/hint", params={"device_id": "kitchen"})
            assert hint.json()["webrtc_url"] == answer.json()["webrtc_url"] == f"{chosen.http.origin}/whip"
            token = answer.json()["join_token"]
            joining = await running.verifier.join(token)
            assert isinstance(joining, Joining), joining
            call_id = running.switchboard.join(joining, "websocket")
            assert not isinstance(call_id, Refuse)
            await running.hang_up()
        return token, joining.resume_token

    async def scenario() -> None:
        chosen = settings(tmp_path)
        used, unused = await opened(chosen)
        async with gateway(chosen) as running:
            for token in (used, unused):
                refused = await running.verifier.join(token)
                assert isinstance(refused, Refuse)
                assert refused.code == "session_over"

    run(scenario())


def test_a_gateway_starts_and_answers_while_its_redis_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        chosen = settings(tmp_path, redis_url=f"redis://127.0.0.1:{lease()}/0")
        async with gateway(chosen) as running:
            transport = httpx.ASGITransport(running.http)
            async with httpx.AsyncClient(transport=transport, base_url=chosen.http.origin) as http:
                assert (await http.get("/readyz")).status_code == 200
                answer = await http.post("/v1/session", json={"device_id": "kitchen", "account_id": "ann"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.json()["detail"] == "the session store is away"
            refused = await running.verifier.join("x.y")
            assert isinstance(refused, Refuse)
            assert refused.code == "sessions_away"

    run(scenario())


def test_two_gateways_share_what_a_number_may_have_at_once(tmp_path: Path) -> None:
    async def comes(to: Gateway, number: int) -> str:
        transport = httpx.ASGITransport(to.http)
        form = {"CallSid": f"CA{number:032x}", "From": "+15005550006", "To": "+15005550001", "CallStatus": "ringing"}
        async with httpx.AsyncClient(base_url="http://127.0.0.1", transport=transport) as http:
            return (await http.post("/twilio/voice", data=form)).text

    async def scenario(url: str) -> None:
        given: dict[str, Any] = {"redis_url": url, "limits": {"max_calls_per_number": 2, "watchdog": False}}
        async with (
            gateway(settings(tmp_path / "a", **given)) as one,
            gateway(settings(tmp_path / "b", **given)) as other,
        ):
            assert "<Stream" in await comes(one, 1)
            assert "<Stream" in await comes(other, 2)
            for each in (one, other):
                assert '<Reject reason="busy"' in await comes(each, 3)
            one.switchboard.close()
            async with asyncio.timeout(5):
                while "<Stream" not in await comes(other, 4):
                    await asyncio.sleep(0.05)

    with redis_server(tmp_path) as redis:
        run(scenario(redis.url))


def test_the_audit_log_is_written_of_what_is_redacted(tmp_path: Path) -> None:
    async def scenario() -> None:
        audit = {"folder": tmp_path / "audit", "sample_percent": 100}
        async with gateway(settings(tmp_path / "data", audit=audit)) as running:
            records, at = running.switchboard.records, SYSTEM_CLOCK.wall()
            agent = running.agent.name
            records.append(CallStarted(CallId("c"), DEFAULT_TENANT, "inbound", "sip", agent, at))
            records.append(TurnEnded(CallId("c"), at, TurnRecord(0, "it is 4111 1111 1111 1111", "thank you")))

    run(scenario())
    [row] = AuditFolder(tmp_path / "audit").rows()
    assert (row["caller_text"], row["agent_text"]) == ("it is [card]", "thank you")
    assert len(row["agent_sha256"]) == 64
    [found] = [each.verify()[0] for each in AuditFolder(tmp_path / "audit").workers]
    assert (found.worker, found.rows, found.broken) == ("0", 1, None)


def test_a_gateway_whose_bucket_is_away_goes_on_and_moves_what_waits_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bucket, "TRIES", 0)

    async def scenario(url: str) -> None:
        access = {"access_key_id": KEY_ID, "secret_access_key": SECRET, "endpoint": url}
        audit = {"bucket": "s3://kept/audit", "sample_percent": 100, **access}
        async with gateway(settings(tmp_path / "data", audit=audit)) as running:
            records, at = running.switchboard.records, SYSTEM_CLOCK.wall()
            records.append(CallStarted(CallId("c"), DEFAULT_TENANT, "inbound", "sip", running.agent.name, at))
            records.append(TurnEnded(CallId("c"), at, TurnRecord(0, "hello", "good day")))

    with S3Server("kept") as store:
        run(scenario(store.url))
        before = len(store.objects)
        store.away = True
        run(scenario(store.url))
        assert len(store.objects) == before
        assert len([*(tmp_path / "data" / "audit").glob("0/*/*.parquet")]) == 1
        said = [record for record in caplog.records if "files wait in the folder" in record.getMessage()]
        assert len(said) == 1
        store.away = False
        run(scenario(store.url))
        there = Bucket("s3://kept/audit", Access(KEY_ID, SECRET, store.url))
        [found] = [each.verify()[0] for each in AuditFolder(tmp_path / "elsewhere", Custody(bucket=there)).workers]
        assert (found.rows, found.broken) == (3, None)


def test_an_audit_log_without_pyarrow_is_named_with_its_extra(tmp_path: Path) -> None:
    story = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from trunkline.cli import main\n"
        f"sys.argv = ['trunkline', 'audit', 'verify', '--config', {str(tmp_path / 'a.toml')!r}]\n"
        "main()"
    )
    (tmp_path / "a.toml").write_text(f'[audit]\nfolder = "{tmp_path / "audit"}"\n')
    done = subprocess.run([sys.executable, "-c", story], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    why = "needs pyarrow: pyarrow is not installed: pip install 'trunkline[audit]'"
    assert done.stderr == f"audit.folder = '{tmp_path / 'audit'}': {why}\n"


def test_an_audit_folder_that_cannot_be_written_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def scenario() -> None:
        folder = tmp_path / "file" / "audit"
        with pytest.raises(ConfigError, match=r"audit.folder = .*: a folder we may write to .*not a directory"):
            async with gateway(settings(tmp_path / "data", audit={"folder": folder})):
                pass

    run(scenario())


def test_a_gateway_with_a_key_service_seals_what_it_keeps_where_it_is_to_be(tmp_path: Path) -> None:
    service = tmp_path / "kms"
    service.write_text(
        f"#!{sys.executable}\nimport sys\nsaid = sys.stdin.read()\n"
        "print(*(['vault', said] if sys.argv[1] == 'wrap' else [said]))\n"  # wraps nothing: a stand-in
    )
    service.chmod(0o700)
    chosen = settings(
        tmp_path / "data",
        record=True,
        privacy={
            "kms": f"command: {service}",
            "kms_seconds": 30,
            "recordings_days": 30,
            "residency": {"us": {"countries": ["US"], "recordings": tmp_path / "us", "providers": []}},
        },
        region="us",
    )
    call_id = CallId("call_kept")

    async def scenario() -> None:
        async with gateway(chosen) as running:
            board, at = running.switchboard, datetime(2026, 11, 28, tzinfo=UTC)
            board.records.append(
                CallStarted(call_id, DEFAULT_TENANT, "inbound", "sip", "clinic", at, "+12125550177", None)
            )
            board.records.append(TurnEnded(call_id, at, TurnRecord(0, "my maiden name is Featherstonehaugh", "")))
            recorder = board.line.recorder(call_id, Allow())
            assert isinstance(recorder, Recorder)
            recorder.write("caller", 0, bytes(160))
            recorder.close()
            board.records.append(CallEnded(call_id, at, "caller_hung_up"))
            facts = Facts("third_party", DEFAULT_TENANT, "inbound", "+12125550177", target="openai")
            assert board.decide(facts, at) == Refuse("residency", "openai is none of the providers of us")
            assert await asyncio.to_thread(recorder.wait, 5)
            assert await running.records(5)
        assert [path.name for path in (tmp_path / "us").iterdir()] == ["call_kept.wav.sealed"]
        assert files_with(tmp_path / "data", "Featherstonehaugh") == []
        async with opened(chosen) as kept:
            record = await CallRecords(kept.database).get(DEFAULT_TENANT, call_id)
            assert record is not None
            assert record["turns"][0]["caller_text"] == "my maiden name is Featherstonehaugh"
            (noted,) = [event["data"] for event in record["events"] if event["kind"] == "recorded"]
            assert (noted["file"], noted["audio_bytes"], noted["failed"]) == ("call_kept.wav.sealed", 320, "")

    run(scenario())
