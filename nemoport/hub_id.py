"""Names of repositories on the Hub: organisation/name, with or without @revision."""

from __future__ import annotations

import re

HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")


def split_hub_id(name: str) -> tuple[str, str] | None:
    """Returns (organisation/name, revision or ""), or None where `name` is not the name of a repository."""
    match = HUB_ID.fullmatch(name)
    return (match["repo"], match["revision"] or "") if match else None
