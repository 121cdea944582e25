"""A headless Chromium driven through its DevTools pipe: requests, console and screenshots of a page, at any width.

Nothing but the standard library: messages are JSON between zero bytes on file descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip

# Run before the browser: the pipes come to 3 and 4, by way of numbers that neither of them has.
PUT_IN_PLACE = """
import fcntl, os, sys
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 20) for number in sys.argv[1:3]]
for descriptor, place in zip(high, (3, 4)):
    os.dup2(descriptor, place)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    """Path of a Chromium, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Page:
    """A page that is open. events: what the browser sent about it since it was opened."""

    browser: Browser
    session: str
    events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a DevTools command."""
        return self.browser.call(method, self.session, parameters)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def open(self, address: str, *, width: int, scheme: str) -> None:
        """Load `address` in a window of `width` CSS pixels; scheme: `light` or `dark`."""
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        is_phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=is_phone)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media="screen", features=features)
        self.call("Page.navigate", url=address)
        end = time.monotonic() + 60
        while not any(event["method"] == "Page.loadEventFired" for event in self.browser.read_events(self.session)):
            assert time.monotonic() < end, "the page was not loaded in a minute"
            self.evaluate("0")
            time.sleep(0.05)

    def take_picture(self, path: Path, *, clip: tuple[float, float, float, float] | None = None) -> None:
        """The whole page, or the part (x, y, width, height), as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        x, y, width, height = clip or (0, 0, size["width"], size["height"])
        area = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        done = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=area)
        path.write_bytes(base64.b64decode(done["data"]))

    def count_printed_pages(self) -> int:
        """How many A4 pages the page fills in print."""
        self.call("Emulation.setEmulatedMedia", media="", features=[])
        done = self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return len(re.findall(rb"/Type\s*/Page\b(?!s)", base64.b64decode(done["data"])))

    def list_requests(self) -> list[str]:
        """Requested addresses, without data: URLs."""
        events = self.browser.read_events(self.session)
        requested = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [address for address in requested if not address.startswith("data:")]

    def list_complaints(self) -> list[str]:
        """Errors and warnings of the console, and of the browser about the page."""
        events = self.browser.read_events(self.session)
        said = [e["params"]["entry"]["text"] for e in events if e["method"] == "Log.entryAdded"]
        said += [json.dumps(e["params"]) for e in events if e["method"] == "Runtime.exceptionThrown"]
        return said + [json.dumps(e["params"]) for e in events if e["method"] == "Runtime.consoleAPICalled"]


class Browser:
    """Use `start_browser`."""

    def __init__(self, process: subprocess.Popen[bytes], read: int, write: int) -> None:
        self._process, self._read, self._write = process, read, write
        self._number = 0
        self._rest = b""
        self._responses: dict[int, dict[str, Any]] = {}
        self._events: dict[str, list[dict[str, Any]]] = {}

    def open_page(self) -> Page:
        """A new, empty page."""
        target = self.call("Target.createTarget", None, {"url": "about:blank"})["targetId"]
        attached = self.call("Target.attachToTarget", None, {"targetId": target, "flatten": True})
        return Page(self, attached["sessionId"])

    def read_events(self, session: str) -> list[dict[str, Any]]:
        """The events of a page so far."""
        return self._events.get(session, [])

    def call(self, method: str, session: str | None, parameters: dict[str, Any]) -> dict[str, Any]:
        """Send a command and wait for its response."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while number not in self._responses:
            self._take(end)
        response = self._responses.pop(number)
        assert "error" not in response, (method, response["error"])
        return response["result"]

    def _take(self, end: float) -> None:
        ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
        assert ready, "the browser did not answer in a minute"
        content = os.read(self._read, 1 << 20)
        assert content, "the browser ended"
        *whole, self._rest = (self._rest + content).split(b"\0")
        for text in whole:
            message = json.loads(text)
            if "id" in message:
                self._responses[message["id"]] = message
            else:
                self._events.setdefault(message.get("sessionId", ""), []).append(message)


@contextlib.contextmanager
def start_browser(program: str, folder: Path, *, more_flags: Sequence[str] = ()) -> Generator[Browser]:
    """A browser with a profile of its own in `folder`; it is ended after."""
    to_browser, from_browser = os.pipe(), os.pipe()
    command = [program, *FLAGS, *more_flags, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    log = open(folder / "browser.log", "wb")  # noqa: SIM115 (closed below)
    process = subprocess.Popen(
        [sys.executable, "-c", PUT_IN_PLACE, str(to_browser[0]), str(from_browser[1]), *command],
        pass_fds=(to_browser[0], from_browser[1]),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, "HOME": str(folder)},
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Browser(process, from_browser[0], to_browser[1])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for descriptor in (from_browser[0], to_browser[1]):
            os.close(descriptor)
        log.close()
