"""A server for the page, for this machine alone, with the headers that threads in a browser need."""

from __future__ import annotations

import re
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from nemoport.errors import UsageError
from nemoport.web.site import PAGE

HOST = "127.0.0.1"
ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def content_policy() -> str:
    """Returns the page's content security policy, which stands in its index.html. A worker has that of its own response."""
    found = re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]+)"', (PAGE / "index.html").read_text("utf-8"))
    assert found
    return found[1]


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        for name, value in {**ISOLATION, "Content-Security-Policy": content_policy(), "Cache-Control": "no-cache"}.items():
            self.send_header(name, value)
        super().end_headers()

    def parse_request(self) -> bool:
        """Refuses requests by another name of this machine: a site could take one for its own (DNS rebinding)."""
        if not super().parse_request():
            return False
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host in (HOST, "localhost"):
            return True
        self.send_error(403, "by this name")
        return False

    def list_directory(self, path):
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


def server(folder: Path, port: int = 8000) -> ThreadingHTTPServer:
    """Returns a server of a folder, at HOST. port: 0 for a free one. Raises UsageError where the port is taken, and for a folder
    without a page."""
    if not (folder / "index.html").is_file():
        todo = "make one with `make web`, or with `nemoport package --layout web`"
        raise UsageError(f"{folder} has no page.", expected="index.html", found="none", todo=todo)
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        found, todo = str(error), "choose another one (--port)"
        raise UsageError(f"Port {port} cannot be used.", expected="a free one", found=found, todo=todo) from error
