"""A headless Chromium for tests, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import websocket

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--remote-debugging-port=0", "--remote-allow-origins=*"),
)
KEYS = {"Tab": 9, "Enter": 13, "ArrowRight": 39}


def executable() -> str | None:
    """Where Chromium is, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """One open page. `events` collects what the browser said while commands were answered."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=60)
        self._number = 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while (message := json.loads(self._socket.recv())).get("id") != self._number:
            self.events.append(message)
        assert "error" not in message, message["error"]
        return message["result"]

    def open(self, address: str, width: int, scheme: str) -> None:
        """Load a page at a width in CSS pixels and a colour scheme, `light` or `dark`."""
        self.events.clear()
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", url=address)
        deadline = time.monotonic() + 60
        while not self.of("Page.loadEventFired"):
            assert time.monotonic() < deadline, f"{address} did not load"
            self.evaluate("0")
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key."""
        codes = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, **codes)

    def screenshot(self, path: Path) -> None:
        """Save the whole page as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def of(self, method: str) -> list[dict[str, Any]]:
        """The parameters of every event of one kind since the page was opened."""
        return [event["params"] for event in self.events if event["method"] == method]


@contextlib.contextmanager
def browser() -> Iterator[Tab]:
    """A Chromium of its own with an empty profile, ended at the end."""
    path = executable()
    assert path is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Tab(_address(Path(profile) / "DevToolsActivePort", process))
        finally:
            process.terminate()
            process.wait(timeout=30)


def _address(port_file: Path, process: subprocess.Popen[bytes]) -> str:
    """The page's DevTools address, asked of the browser over the port that it wrote into its profile."""
    deadline = time.monotonic() + 60
    while not (port_file.exists() and "\n" in port_file.read_text()):
        assert process.poll() is None, "Chromium ended at once"
        assert time.monotonic() < deadline, "Chromium opened no DevTools port"
        time.sleep(0.05)
    with urlopen(f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}/json/list") as answer:
        return next(one["webSocketDebuggerUrl"] for one in json.load(answer) if one["type"] == "page")
