"""Who may use a server: a bearer token, and the pages that a browser may call it from."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from nemoport.errors import UsageError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN_PATHS = ("/", "/health", "/ready", "/page.js", "/page.css", "/worklet.js")  # without a token: nothing of a model or a client
SUBPROTOCOL = "openai-insecure-api-key."  # a browser's WebSocket can send no header; OpenAI's clients put the token here
SHORTEST_TOKEN = 16


class Access:
    """The rule of one server."""

    def __init__(self, token: str | None, origins: Sequence[str], host: str):
        """origins: such as https://asr.example.org, besides pages of this machine. host: that the server listens on."""
        self._token = _digest(token) if token else None  # the token itself goes to no other machine
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self._hosts = {*LOOPBACK, host}

    def refusal(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, UsageError] | None:
        """Returns the HTTP status and the error for a request that is refused, None for one that may be served."""
        given = {name.lower(): value.decode("latin-1") for name, value in headers}
        origin = given.get(b"origin")
        if origin is not None and not self._is_known(origin, given.get(b"host", "")):
            todo = "start the server with --allow-origin for this page"
            what = "Pages of this origin may not use this server."
            return 403, UsageError(what, expected="a page of this machine", found=origin[:200], todo=todo)
        if self._token is None or path in OPEN_PATHS or any(self._is_right(token) for token in _tokens(given)):
            return None
        expected, todo = "Authorization: Bearer TOKEN", "ask who runs the server"
        found = "another one" if list(_tokens(given)) else "none"
        return 401, UsageError("This server needs a token.", expected=expected, found=found, todo=todo)

    def _is_known(self, origin: str, host_header: str) -> bool:
        try:
            host, own = urlsplit(origin).hostname, urlsplit(origin).netloc
        except ValueError:
            return False
        # Without a token the name under which a page was reached proves nothing: it may lead here since a moment ago.
        if self._token is not None and own == host_header:
            return True
        return origin.rstrip("/").lower() in self._origins or host in self._hosts

    def _is_right(self, token: str) -> bool:
        return self._token is not None and hmac.compare_digest(_digest(token), self._token)


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()


def _tokens(headers: dict[bytes, str]) -> Iterable[str]:
    kind, _, token = headers.get(b"authorization", "").partition(" ")
    if kind.lower() == "bearer":
        yield token.strip()
    for protocol in headers.get(b"sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(SUBPROTOCOL):
            yield protocol.strip().removeprefix(SUBPROTOCOL)


def read_token(path: Path) -> str:
    """Reads a token from the first line of a file. Raises UsageError for one that is short or not of plain characters."""
    try:
        token = (path.read_text(encoding="ascii").splitlines() or [""])[0].strip()
    except (OSError, ValueError) as error:
        raise UsageError("The token cannot be read.", expected=f"a line in {path}", found=str(error), todo="write it") from error
    if len(token) < SHORTEST_TOKEN or not all(c.isalnum() or c in "-_.~" for c in token):
        expected = f"at least {SHORTEST_TOKEN} letters, digits or - _ . ~"
        todo = "make one, for example with: openssl rand -hex 32"
        raise UsageError(f"There is no token in {path}.", expected=expected, found=f"{len(token)} characters", todo=todo)
    return token
