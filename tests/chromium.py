"""Chromium without a window, driven over its debugging protocol: what the tests of the page use."""

import itertools
import json
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
)


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """The page in a browser, whatever drives it: `run` evaluates an expression there, awaits it and returns its value."""

    errors = ()

    def go(self, url):
        self.navigate(url)
        self.wait("document.readyState === 'complete' && document.getElementById('threads').options.length > 0")

    def wait(self, condition, seconds=60):
        """Waits until an expression is true. Raises TimeoutError with what the page states."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.run(condition):
                    return
            except RuntimeError:  # the page is being loaded
                pass
            time.sleep(0.05)
        state = self.run("[document.getElementById('error')?.innerText, document.getElementById('status')?.innerText]")
        raise TimeoutError(f"{condition}: {state} {self.errors}")

    def set(self, name, value):
        self.run(f"document.getElementById({name!r}).value = {json.dumps(value)}")

    def click(self, name):
        self.run(f"document.getElementById({name!r}).click()")

    def text(self, name):
        return self.run(f"document.getElementById({name!r}).innerText")


class Tab(Page):
    """A page. `errors`: messages of its console and of its uncaught errors; `requests`: URLs that it and its workers got."""

    def __init__(self, socket):
        self._socket, self._numbers = socket, itertools.count(1)
        self._answers, self.errors, self.requests = {}, [], []
        (target,) = [t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self._session = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")
        attach = {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": True}
        self.call("Target.setAutoAttach", **attach)

    def _call(self, method, session=None, **parameters):
        number = next(self._numbers)
        self._socket.send(
            json.dumps({"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {}))
        )
        deadline = time.monotonic() + 600
        while number not in self._answers:
            self._take(json.loads(self._socket.recv(timeout=deadline - time.monotonic())))
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _take(self, message):
        if "id" in message:
            self._answers[message["id"]] = message
            return
        method, found = message["method"], message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(found["exceptionDetails"].get("exception", {}).get("description") or str(found))
        elif method == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.errors.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])
        elif method == "Target.attachedToTarget":
            session = found["sessionId"]
            for domain in ("Network", "Runtime"):
                self._socket.send(
                    json.dumps({"id": next(self._numbers), "method": f"{domain}.enable", "sessionId": session, "params": {}})
                )

    def call(self, method, **parameters):
        return self._call(method, self._session, **parameters)

    def navigate(self, url):
        self.call("Page.navigate", url=url)

    def run(self, expression):
        """Evaluates an expression, awaits it, and returns its value."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description") or str(found))
        return found["result"].get("value")

    def choose(self, selector, *paths):
        """Gives files, or a folder, to a file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(Path(path).resolve()) for path in paths])

    def screenshot(self, path, width, height, dark=False):
        """Writes a PNG of a window of that size."""
        import base64

        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def tab(profile: Path, *flags: str):
    """Yields a Tab of a new Chromium with its own profile folder."""
    from websockets.sync.client import connect

    command = [chromium(), *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as browser:
        try:
            found = next(filter(None, (re.search(r"ws://\S+", line) for line in browser.stderr)))
            with connect(found[0], max_size=None, compression=None) as socket:
                yield Tab(socket)
        finally:
            browser.terminate()
            try:
                browser.wait(10)
            except subprocess.TimeoutExpired:
                browser.kill()
