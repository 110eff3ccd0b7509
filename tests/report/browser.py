"""A real browser without a window, driven over a pipe by its DevTools protocol: no port, no library.

with Browser(path) as browser:
    page = browser.open(html, width=360, is_dark=True)
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

TIMEOUT_S = 120.0  # a busy machine is slow at times
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--remote-debugging-pipe",
)


def find_browser() -> str | None:
    """The program, where there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One process, in a group of its own, that ends with the block. Raises TimeoutError where it does not answer."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands, self._out = (_high(end) for end in os.pipe())
        self._in, answers = (_high(end) for end in os.pipe())
        arguments = [program, *FLAGS, f"--user-data-dir={self._folder.name}", "about:blank"]
        nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (1, 2)]
        pipes = [(os.POSIX_SPAWN_DUP2, commands, 3), (os.POSIX_SPAWN_DUP2, answers, 4)]
        self._process = os.posix_spawn(program, arguments, os.environ, file_actions=[*pipes, *nowhere], setpgroup=0)
        os.close(commands)
        os.close(answers)
        self._num_sent = 0
        self._buffer = b""
        self._messages: deque[dict[str, Any]] = deque()
        self.complaints: list[str] = []  # of the page that is open: errors, warnings, refused requests

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for end in (self._in, self._out):
            os.close(end)
        with suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._folder.cleanup()

    def open(self, file: Path, width: int, is_dark: bool = False) -> Page:
        """A file in a window of this width. A width below 500 is a telephone's."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        is_mobile = width < 500
        page.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=is_mobile)
        theme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        page.ask("Emulation.setEmulatedMedia", features=[theme])
        self.complaints.clear()
        page.ask("Page.navigate", url=file.resolve().as_uri())
        self._wait_for("Page.loadEventFired", session)
        return page

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._num_sent += 1
        message = {"id": self._num_sent, "method": method, "params": parameters}
        content = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        while content:
            content = content[os.write(self._out, content) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._num_sent:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._messages.append(answer)

    def _wait_for(self, method: str, session: str) -> None:
        while True:
            message = self._messages.popleft() if self._messages else self._next()
            if message.get("method") == method and message.get("sessionId") == session:
                return

    def _next(self) -> dict[str, Any]:
        deadline_s = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([self._in], [], [], left_s)[0]:
                raise TimeoutError("The browser does not answer.")
            got = os.read(self._in, 1 << 16)
            if not got:
                raise TimeoutError("The browser has ended.")
            self._buffer += got
        content, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(content)
        self._listen(message)
        return message

    def _listen(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(told["args"]))
            case "Log.entryAdded":
                self.complaints.append(told["entry"]["text"])
            case "Network.requestWillBeSent" if not told["request"]["url"].startswith(("file:", "data:")):
                self.complaints.append(told["request"]["url"])


class Page:
    """An open page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.ask(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """The value of a piece of JavaScript, through JSON."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, clip: dict[str, float] | None = None, scale: float = 1.0) -> bytes:
        """PNG of the whole page, or of a part (x, y, width, height)."""
        if clip is None:
            size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
            clip = {name: size[name] for name in ("x", "y", "width", "height")}
        answer = self.ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip={**clip, "scale": scale}
        )
        return base64.b64decode(answer["data"])


def _high(descriptor: int) -> int:
    """The same file under a number that is not among those which the browser wants."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(descriptor)
    return moved
