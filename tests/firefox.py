"""Firefox without a window, driven by WebDriver BiDi: what the tests of the page use."""

import itertools
import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from chromium import Page


def firefox() -> str | None:
    return shutil.which("firefox-esr") or shutil.which("firefox")


class FirefoxTab(Page):
    def __init__(self, socket):
        self._socket, self._numbers = socket, itertools.count(1)
        self.call("session.new", capabilities={})
        self._context = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def call(self, method, **parameters):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv(timeout=300))).get("id") != number:
            pass  # an event
        if answer["type"] == "error":
            raise RuntimeError(f"{method}: {answer['message']}")
        return answer["result"]

    def navigate(self, url):
        self.call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def run(self, expression):
        target = {"context": self._context}
        found = self.call("script.evaluate", expression=expression, target=target, awaitPromise=True, userActivation=True)
        if found["type"] != "success":
            raise RuntimeError(found["exceptionDetails"]["text"])
        return found["result"].get("value")

    def choose(self, selector, *paths):
        (node,) = self.call("browsingContext.locateNodes", context=self._context, locator={"type": "css", "value": selector})[
            "nodes"
        ]
        files = [str(Path(path).resolve()) for path in paths]
        self.call("input.setFiles", context=self._context, element={"sharedId": node["sharedId"]}, files=files)


@contextmanager
def firefox_tab(profile: Path):
    """Yields a FirefoxTab of a new Firefox with its own profile folder."""
    from websockets.sync.client import connect

    profile.mkdir(parents=True)
    command = [firefox(), "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as browser:
        try:
            found = next(filter(None, (re.search(r"ws://\S+", line) for line in browser.stderr)))
            with connect(f"{found[0]}/session", max_size=None, compression=None) as socket:
                yield FirefoxTab(socket)
        finally:
            browser.terminate()
            try:
                browser.wait(10)
            except subprocess.TimeoutExpired:
                browser.kill()
