"""The pages of a server: one that transcribes the microphone, and one that lists the paths. They load nothing of others."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

from nemoport.server.files import FIELDS, GRANULARITIES, RESPONSE_FORMATS

_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_FILES = ("index.html", "page.js", "worklet.js", "page.css")
_TEXT: dict[str, Any] = {"type": "string"}
# The body of /v1/audio/transcriptions for OpenAPI: it is read by hand, in bounds.
_PROPERTIES = dict.fromkeys(FIELDS, _TEXT) | {
    "file": {"type": "string", "format": "binary"},
    "response_format": _TEXT | {"enum": list(RESPONSE_FORMATS), "default": "json"},
    "timestamp_granularities[]": {"type": "array", "items": _TEXT | {"enum": list(GRANULARITIES)}},
    "hotwords": _TEXT | {"description": "phrases, separated by commas"},
    "temperature": {"type": "number", "description": "has no effect: decoding draws nothing"},
}
FORM = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": _PROPERTIES}}},
    }
}


def page_file(name: str) -> tuple[bytes, str] | None:
    """Returns a file of the page by its name, and its type."""
    if name not in _FILES:
        return None
    return (files("nemoport.server") / "page" / name).read_bytes(), _TYPES[name.rpartition(".")[2]]


def api_page(schema: dict[str, Any]) -> str:
    """Returns a page that lists the paths of an OpenAPI schema, and the two of WebSockets, which OpenAPI has no words for."""
    rows = [
        f"<tr><td>{escape(method.upper())}</td><td>{escape(path)}</td><td>{escape(one.get('description', ''))}</td></tr>"
        for path, methods in schema["paths"].items()
        for method, one in methods.items()
    ]
    rows += [f"<tr><td>WebSocket</td><td>{path}</td><td>{what}</td></tr>" for path, what in _SOCKETS.items()]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>nemoport: paths</title>'
        '<link rel="stylesheet" href="/page.css"><main><h1>Paths</h1>'
        f'<p>The schema: <a href="/openapi.json">openapi.json</a>.</p><table>{"".join(rows)}</table></main></html>'
    )


_SOCKETS = {
    "/v1/stream": "A live stream: JSON and binary audio in, JSON out.",
    "/v1/realtime": "The same with OpenAI's event names.",
}
