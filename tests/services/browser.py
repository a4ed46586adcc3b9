"""A headless Chromium that opens pages, over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import aiohttp
from servers import end_group

PATIENCE = 120  # seconds within which a page must show the expected texts
VISIBLE = "(document.body?.innerText ?? '').replaceAll('\\u00a0', ' ')"
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--window-size=1600,1100",
)


def chromium() -> str | None:
    """Return the path of a Chromium, or None if it is not installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


class Browser:
    """A browser page. It waits for texts instead of fixed times, since machines may be slow.

    Args:
        socket: Address of the page's DevTools.
        pictures: Folder for screenshots.
    """

    def __init__(self, socket: str, pictures: Path) -> None:
        self.socket = socket
        self.pictures = pictures

    def see(self, url: str, *texts: str, name: str, click: str | None = None) -> str:
        """Open a page, wait until it shows all texts, and keep a screenshot.

        Args:
            url: Address of the page.
            texts: Texts that the page must show.
            name: Name of the screenshot.
            click: JavaScript expression of an element to click first, when it exists.

        Returns:
            The page's visible text.
        """
        return asyncio.run(self._see(url, texts, name, click))

    async def _see(self, url: str, texts: tuple[str, ...], name: str, click: str | None) -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self.socket, max_msg_size=0) as page,
        ):
            await self._call(page, "Page.enable")
            await self._call(page, "Page.navigate", url="about:blank")  # forces a reload
            await self._call(page, "Page.navigate", url=url)
            end, shown, clicked = time.monotonic() + PATIENCE, "", click is None
            while True:
                if not clicked:
                    script = f"(e => e ? (e.click(), true) : false)({click})"
                    clicked = await self._evaluate(page, script)
                shown = await self._evaluate(page, VISIBLE)
                if clicked and all(text in shown for text in texts) and await self._is_loaded(page):
                    break
                if time.monotonic() > end:
                    break
                await asyncio.sleep(0.3)
            picture = await self._call(page, "Page.captureScreenshot", format="png")
            self.pictures.mkdir(parents=True, exist_ok=True)
            (self.pictures / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))
            missing = [text for text in texts if text not in shown]
            assert not missing, f"{url} does not show {missing}; it shows: {shown}"
            return shown

    async def _is_loaded(self, page: Any) -> bool:
        """Return whether all pictures are loaded and no loading indicator is shown."""
        script = (
            "[...document.images].every(i => i.complete) && "
            "!document.querySelector('[aria-busy=true], [class*=skeleton i], [class*=spinner i]')"
        )
        return await self._evaluate(page, script)

    async def _evaluate(self, page: Any, script: str) -> Any:
        found = await self._call(page, "Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    async def _call(self, page: Any, method: str, **parameters: Any) -> dict[str, Any]:
        await page.send_str(json.dumps({"id": 1, "method": method, "params": parameters}))
        while True:
            answer = json.loads((await page.receive(timeout=PATIENCE)).data)
            if answer.get("id") == 1:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]


@contextmanager
def browser(program: str, folder: Path, pictures: Path) -> Iterator[Browser]:
    """Start Chromium with its own profile; end it after the block."""
    log = (folder / "chromium.log").open("w")
    process = subprocess.Popen(
        [program, *OPTIONS, f"--user-data-dir={folder}/profile", "about:blank"],
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        port = _port(folder / "profile" / "DevToolsActivePort", process, Path(log.name))
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            pages = [each for each in json.load(answer) if each["type"] == "page"]
        yield Browser(pages[0]["webSocketDebuggerUrl"], pictures)
    finally:
        end_group(process)
        log.close()


def _port(path: Path, process: subprocess.Popen[bytes], log: Path) -> int:
    end = time.monotonic() + PATIENCE
    while not path.is_file() or not path.read_text().strip():
        dead = process.poll() is not None or time.monotonic() > end
        assert not dead, f"Chromium did not start: {log.read_text()}"
        time.sleep(0.1)
    return int(path.read_text().split()[0])
