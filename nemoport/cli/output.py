"""Standard output that may not be able to encode a text."""

from __future__ import annotations

import json
import sys


def print_text(text: str, *, is_json: bool = False) -> None:
    """Prints text as it is, at once. What the output cannot encode is escaped, in a line of JSON as JSON does it."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        if is_json:
            text = json.dumps(json.loads(text)) + "\n"
        else:
            text = text.encode(encoding, "backslashreplace").decode(encoding)
    print(text, end="", flush=True)
