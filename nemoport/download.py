"""One file by its address: https only, bounded in size."""

from __future__ import annotations

import re
from http.client import HTTPException
from urllib.error import URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from nemoport.errors import UsageError, first_line

TIMEOUT_S = 60
HUB_FILE = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@(?P<revision>[\w./-]+):(?P<path>[^\\]+)")
_GITHUB = re.compile(r"https://github\.com/([^/]+/[^/]+)/(?:blob|raw)/(.+)")
_HUB = re.compile(r"(https://huggingface\.co/(?:datasets/)?[^/]+/[^/]+)/blob/(.+)")


def address_of(place: str) -> str | None:
    """Returns the address of a file: of one on the Hub, named organisation/name@revision:path, of GitHub's or the Hub's own page
    of it, or of any that is an address; None where `place` is none of these."""
    if match := HUB_FILE.fullmatch(place):
        return f"https://huggingface.co/{match['repo']}/resolve/{match['revision']}/{match['path']}"
    if "://" not in place:
        return None
    place = _GITHUB.sub(r"https://raw.githubusercontent.com/\1/\2", place)
    return _HUB.sub(r"\1/resolve/\2", place)


class _OnlyHttps(HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(address: str, most_bytes: int, opener: OpenerDirector | None = None) -> bytes:
    """Returns what is at an address. opener: for tests. Raises UsageError where it is not https, as where it leads elsewhere, is
    not to be had, or has more than `most_bytes`."""
    _check(address)
    opener = opener or build_opener(_OnlyHttps, HTTPSHandler, ProxyHandler)
    try:
        with opener.open(Request(address, headers={"User-Agent": "nemoport"}), timeout=TIMEOUT_S) as answer:
            content = answer.read(most_bytes + 1)
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise UsageError(
            f"{address} could not be downloaded.",
            expected="a file that is there, and a network",
            found=first_line(error),
            todo="check the address and the network, or download it by other means and give its path",
        ) from error
    if len(content) > most_bytes:
        todo = "check the address, or download it by other means and give its path"
        raise UsageError(f"{address} is too large.", expected=f"at most {most_bytes} bytes", found="more", todo=todo)
    return content


def _check(address: str) -> None:
    if not address.startswith("https://"):
        todo = "give an https address, or the path of a file"
        raise UsageError("Nothing is downloaded from there.", expected="https://...", found=address, todo=todo)
