"""A headless Chromium, driven by its DevTools protocol (chromedevtools.github.io/devtools-protocol): no more of it than
a person does on the call page. Its microphone plays a WAV."""

import asyncio
import base64
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

START_S = 30.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # the tests are root's
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-port=0",
)


class Page:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(await self._socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    async def value(self, script: str, within: int | None = None) -> Any:
        """Of a JavaScript expression; `within`: a `frame`."""
        where = {} if within is None else {"contextId": within}
        done = await self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, **where)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def frame(self) -> int:
        """The only frame within the page, once it has loaded something; of the same site."""
        async with asyncio.timeout(START_S):
            while True:
                tree = (await self.ask("Page.getFrameTree"))["frameTree"]
                for child in tree.get("childFrames", ()):
                    if child["frame"]["url"] not in ("", "about:blank") or "unreachableUrl" in child["frame"]:
                        world = await self.ask("Page.createIsolatedWorld", frameId=child["frame"]["id"])
                        return int(world["executionContextId"])
                await asyncio.sleep(0.1)

    async def until(self, script: str, seconds: float = 20.0, within: int | None = None) -> Any:
        """The first true value of the expression; a node is {}."""
        deadline = asyncio.get_running_loop().time() + seconds
        while (value := await self.value(script, within)) in (None, False, "", 0):
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not within {seconds} s: {script}\n{await self.value('document.body.innerText')}")
            await asyncio.sleep(0.05)
        return value

    async def click(self, selector: str) -> None:
        await self.value(f"document.querySelector({json.dumps(selector)}).click()")

    async def picture(self, file: Path) -> None:
        shot = await self.ask("Page.captureScreenshot", format="png")
        await asyncio.to_thread(file.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def browsing(url: str, folder: Path, microphone: Path | None = None, *more: str) -> AsyncIterator[Page]:
    """A page of its own browser, at that address, of a telephone's size."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is not installed: make setup-test"
    sound = (f"--use-file-for-fake-audio-capture={microphone}%noloop",) if microphone is not None else ()
    arguments = (*FLAGS, f"--user-data-dir={folder}", *sound, *more, "about:blank")
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        where = folder / "DevToolsActivePort"
        async with asyncio.timeout(START_S):
            while not where.exists() or len(where.read_text().split()) < 2:
                await asyncio.sleep(0.05)
        port = where.read_text().split()[0]
        target = await _target(int(port))
        async with connect(target, max_size=1 << 24, proxy=None) as socket:
            page = Page(socket)
            await page.ask(
                "Emulation.setDeviceMetricsOverride", width=412, height=823, deviceScaleFactor=2, mobile=True
            )
            await page.ask("Page.enable")
            await page.ask("Page.navigate", url=url)
            await page.until("document.readyState === 'complete' && location.href !== 'about:blank'")
            yield page
    finally:
        process.kill()
        await process.wait()


async def _target(port: int) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            targets = (await client.get(f"http://127.0.0.1:{port}/json/list")).json()
            for target in targets:
                if target["type"] == "page":
                    url: str = target["webSocketDebuggerUrl"]
                    return url
            await asyncio.sleep(0.1)
