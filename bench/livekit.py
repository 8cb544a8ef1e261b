"""What a call in a LiveKit room costs the gateway, against the same agent's WebRTC calls (bench/README.md).

    python -m bench.livekit 1 4 8

The rooms are those of the tests' LiveKit server, which costs as much again, in this process: more calls than 8 need
another core for it. Devices ask a question every 8 s.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import numpy as np

from tests.fakes.livekit_server import Device, LivekitServer, until
from trunkline.media.resample import Resampler
from trunkline.testing.caller.speech import synthesize
from trunkline.testing.ports import lease

SECONDS = 12.0
PAUSE_S = 6.0
SECRET = "s" * 40
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Of the process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def by_thread(pid: int) -> dict[str, float]:
    spent: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            start, _, rest = (task / "stat").read_text().rpartition(")")
        except OSError:
            continue
        fields, name = rest.split(), start.partition("(")[2]
        spent[name] = spent.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / TICKS
    return spent


def question() -> bytes:
    pcm16 = (asyncio.run(synthesize("what are your opening hours", "en-us")) * 32767).astype(np.int16).tobytes()
    resampler = Resampler(8000, 48_000)
    return resampler.feed(pcm16) + resampler.flush()


async def talk(device: Device, words: bytes) -> None:
    while True:
        await device.say(words)
        await asyncio.sleep(PAUSE_S)


async def measure(
    origin: str, pid: int, server: LivekitServer, calls: int, words: bytes, *, waiting: bool = False
) -> float:
    """% of a core per call."""
    devices, sessions = [], []
    async with httpx.AsyncClient(trust_env=False) as http:
        for number in range(calls):
            me = {"device_id": f"d{number}", "account_id": "bench"}
            session = (await http.post(f"{origin}/v1/session", json=me, timeout=10)).json()
            sessions.append(session["session_id"])
            device = server.device(session["session_id"], me["device_id"])
            if waiting:
                continue
            await device.enter()
            devices.append(device)
        await asyncio.sleep(1)
        await until(lambda: all(device.messages for device in devices), 20)
        talking = [asyncio.create_task(talk(device, words)) for device in devices]
        await asyncio.sleep(2)
        before, threads = cpu_s(pid), by_thread(pid)
        await asyncio.sleep(SECONDS)
        spent_s = cpu_s(pid) - before
        after = by_thread(pid)
        for task in talking:
            task.cancel()
        for session_id in sessions:
            await http.delete(f"{origin}/v1/session/{session_id}?account_id=bench")
    turns = sum(told["type"] == "turn" for device in devices for told in device.messages)
    print(f"  {calls} calls, {turns} turns: {100 * spent_s / SECONDS:.1f} % of a core in all", flush=True)
    busy = sorted(((100 * (s - threads.get(n, 0.0)) / SECONDS, n) for n, s in after.items()), reverse=True)
    print("   ", ", ".join(f"{name} {share:.1f}" for share, name in busy if share >= 0.5), flush=True)
    return 100 * spent_s / SECONDS / max(1, calls)


async def rooms(origin: str, pid: int, port: int, counts: list[int], words: bytes) -> None:
    async with LivekitServer(port, api_secret=SECRET) as server:
        await measure(origin, pid, server, 0, words)
        await measure(origin, pid, server, 8, words, waiting=True)
        for calls in counts:
            each = await measure(origin, pid, server, calls, words)
            print(f"LiveKit, {calls} calls: {each:.2f} % of a core each", flush=True)


def main() -> None:
    counts, words = [int(each) for each in sys.argv[1:]] or [1, 4, 8], question()
    http, port = lease(), lease()
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "http__port": str(http),
            "data_dir": folder,
            "agent": str(Path(__file__).with_name("standin.toml").resolve()),
            "sip__enabled": "false",
            "livekit__url": f"ws://127.0.0.1:{port}",
            "livekit__api_key": "APItest",
            "livekit__api_secret": SECRET,
        }
        env = os.environ | {f"TRUNKLINE_{name.upper()}": value for name, value in settings.items()}
        gateway = subprocess.Popen(
            [sys.executable, "-m", "trunkline.cli", "serve"],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        origin = f"http://127.0.0.1:{http}"
        try:
            asyncio.run(ready(origin))
            asyncio.run(rooms(origin, gateway.pid, port, counts, words))
            command = ["bench", "webrtc", f"{origin}/whip", "--calls", str(counts[-1]), "--seconds", f"{SECONDS:g}"]
            subprocess.run([sys.executable, "-m", "trunkline.cli", *command, "--pid", str(gateway.pid)], check=False)
        finally:
            gateway.terminate()
            gateway.wait(30)


async def ready(origin: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        for _ in range(600):
            try:
                if (await http.get(f"{origin}/readyz")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("the gateway does not start")


if __name__ == "__main__":
    main()
