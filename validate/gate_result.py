"""The result that a gate returns, and the digest of the files that it judged."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from nemoport.artifact import Manifest
from nemoport.files import digest_json, sha256_file

PASS, FAIL = "pass", "fail"
# Files that a runtime loads besides the graphs; languages.json is there only for a model with a prompt.
SHARED_FILES = ("config.json", "shared/filterbank.bin", "shared/tokens.txt", "shared/languages.json")


@dataclass(frozen=True)
class GateResult:
    """One figure that a gate judged. `case` names the figure among those of its gate, e.g. "lookahead 6, full"."""

    gate: str
    variant: str
    sha256: str  # of the files that were loaded, see `artifact_sha256`; "" if there were none
    status: str  # "pass" or "fail"
    case: str = ""
    measured: float | None = None
    limit: float | None = None  # None: recorded, any finite figure passes
    unit: str = ""
    n: int = 0  # how many utterances, files or checks the figure was measured on
    interval: tuple[float, float] | None = None  # 95 %
    evidence: str = ""
    limits_sha256: str = ""  # of gates.toml
    oracle_digest: str = ""  # which also names checkpoint and corpus
    judge_digest: str = ""  # of the code that ran and judged the artifact, the runtime and its execution provider

    @property
    def passed(self) -> bool:
        return self.status == PASS

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(raw: dict) -> GateResult:
        """The inverse of `to_dict`. Raises KeyError or TypeError for another object."""
        return GateResult(**{**raw, "interval": tuple(raw["interval"]) if raw["interval"] else None})


def within(measured: float, limit: float | None, *, at_least: bool, n: int) -> str:
    """Returns "pass" for a finite figure, measured on at least one thing, that its limit admits; else "fail".

    at_least: the limit is the smallest value that passes, not the largest. n: how many things were measured.
    """
    if n < 1 or not math.isfinite(measured):
        return FAIL
    if limit is None:
        return PASS
    return PASS if (measured >= limit if at_least else measured <= limit) else FAIL


def artifact_sha256(folder: Path) -> str:
    """Digest of the files in `folder` that its manifest lists and of SHARED_FILES beside it, as they are now.

    A file that is missing counts as "missing". Raises ArtifactError if there is no manifest.
    """
    names = [entry.path for entry in Manifest.read(folder).files.values()]
    paths = {name: folder / name for name in names} | {name: folder.parent / name for name in SHARED_FILES}
    return digest_json({name: sha256_file(p) if p.is_file() else "missing" for name, p in sorted(paths.items())})
