"""Headless Chromium for tests, by the DevTools protocol over two pipes: no driver and no open port."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-extensions", "--disable-background-networking", "--remote-debugging-pipe",
)  # fmt: skip
# Chromium reads commands from descriptor 3 and answers on 4, whatever numbers the pipes have here.
LAUNCHER = """
import os, sys
for pipe, far in zip(sys.argv[1:3], (103, 104)):
    os.dup2(int(pipe), far)
for far, wanted in ((103, 3), (104, 4)):
    os.dup2(far, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """One page. Its commands are those of the DevTools protocol."""

    def __init__(self, commands: BinaryIO, answers: BufferedReader) -> None:
        self._commands, self._answers = commands, answers
        self._count, self._buffer, self._session = 0, b"", None
        self.problems: list[str] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; errors of the page go to `problems`."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._next()).get("id") != self._count:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, url: str, width: int = 1400, height: int = 900, *, dark: bool = False) -> None:
        """Load a page in a window of this size."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """Return the value of an expression, or of the promise that it gives."""
        done = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"].get("description"))
        return done["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s: {condition}; the page says {self.problems}")
            time.sleep(0.02)

    def choose(self, selector: str, path: Path) -> None:
        """Put a file into a file input."""
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Press the mouse at the first point, move it along the others, and release it at the last."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self, path: Path) -> None:
        """Write the whole page as PNG."""
        shot = self("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = self._answers.read1(1 << 20)
            if not read:
                raise RuntimeError("Chromium ended")
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        details = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(details["exceptionDetails"]["exception"].get("description", "exception"))
        elif event.get("method") == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
            self.problems.append(" ".join(str(one.get("value", one.get("description"))) for one in details["args"]))
        elif event.get("method") == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.problems.append(f"{details['entry']['text']} {details['entry'].get('url', '')}")


@contextmanager
def page(profile: Path) -> Iterator[Page]:
    """Start Chromium with an empty profile folder, and end it after the block."""
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    chromium = [str(EXECUTABLE), *FLAGS, f"--user-data-dir={profile}"]
    with (profile.parent / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(theirs_in), str(theirs_out), *chromium],
            pass_fds=(theirs_in, theirs_out), stdout=log, stderr=log,
        )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with os.fdopen(ours_out, "wb") as commands, os.fdopen(ours_in, "rb") as answers:
            yield Page(commands, answers)
    finally:
        process.terminate()
        process.wait(20)
