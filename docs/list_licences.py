"""Writes docs/licences.md, the licences of all that an installation of nemoport brings: `python docs/list_licences.py`.

They are what the installed packages state of themselves, on Linux with Python 3.11, where `make setup` installed them.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

LIST = Path(__file__).with_name("licences.md")
NOT_LISTED = ("dev", "docs", "examples", "litert")  # not for users; what a user's own program chooses; not in `make setup`
STATED_IN_FILES = {"camel-kenlm": "LGPL-2.1-or-later", "sigstore-models": "MIT"}  # of packages whose metadata state none
HEAD = """# Licences of the dependencies

nemoport's wheel holds no code of others. pip installs these packages beside it: `nemoport` needs them always, the other names are
extras. `python docs/list_licences.py` makes the table from what the packages state, on Linux with Python 3.11.

Packages hold libraries of others too, which they state in files of their own: soundfile has libsndfile (LGPL-2.1), av has FFmpeg
with x264 and x265 (GPL-2.0-or-later); Ray Serve brings HAProxy, a program of its own (GPL-2.0-or-later), which starts only
where a cluster is set up for it. On Linux torch needs NVIDIA's CUDA libraries (`nvidia-*`, under NVIDIA's terms) and triton (MIT)
besides; its build for the CPU does not.

| package | version | licence | needed by |
|---|---|---|---|
"""


def needed(extras: tuple[str, ...]) -> dict[str, Distribution]:
    """Returns the packages, by normal name, that nemoport with `extras` needs on this system. Raises PackageNotFoundError."""
    found: dict[str, Distribution] = {}
    waiting, seen = [("nemoport", extras)], set()
    while waiting:
        name, chosen = waiting.pop()
        installed = distribution(name)
        for line in installed.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if _normal(requirement.name) == "nemoport":  # an extra that includes another, which is listed by itself
                continue
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (chosen or ("",))):
                one = (_normal(requirement.name), tuple(sorted(requirement.extras)))
                if one not in seen:
                    seen.add(one)
                    waiting.append(one)
        found[_normal(name)] = installed
    del found["nemoport"]
    return found


def licence(of: Distribution) -> str:
    """Returns the licence that a package states: an SPDX expression, else classifiers, else a short text."""
    metadata = of.metadata
    classifiers = [line.split(" :: ")[-1] for line in metadata.get_all("Classifier") or () if line.startswith("License :: ")]
    text = (metadata.get("License") or "").strip()
    stated = metadata.get("License-Expression") or ", ".join(c for c in classifiers if c != "OSI Approved")
    if not stated and text and len(text.splitlines()) == 1:
        stated = text
    return stated or STATED_IN_FILES.get(_normal(metadata["Name"]), "not stated")


def table() -> str:
    """Returns docs/licences.md as it should be. Raises PackageNotFoundError where a dependency is not installed."""
    provided = distribution("nemoport").metadata.get_all("Provides-Extra") or []
    extras = [name for name in provided if name not in NOT_LISTED]
    plain = needed(())
    packages, users = dict(plain), {name: ["nemoport"] for name in plain}
    for extra in extras:
        more = needed((extra,))
        packages |= more
        for name in more.keys() - plain.keys():
            users.setdefault(name, []).append(extra)
    rows = (
        f"| {name} | {packages[name].version.partition('+')[0]} | {licence(packages[name])} | {', '.join(sorted(users[name]))} |"
        for name in sorted(packages)
    )
    return HEAD + "\n".join(rows) + "\n"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    LIST.write_text(table(), encoding="utf-8")
