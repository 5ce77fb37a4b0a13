"""What a gate returns, and the digest of what it judged."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from nemoport.artifact import Manifest
from nemoport.files import digest_json, sha256_file

PASS, FAIL = "pass", "fail"
# What a runtime loads besides the graphs; languages.json only of a model with a prompt.
JUDGED_BESIDE = ("config.json", "shared/filterbank.bin", "shared/tokens.txt", "shared/languages.json")


@dataclass(frozen=True)
class GateResult:
    """One figure that a gate judged. `case` tells the gate's figures apart, e.g. "lookahead 6, full"."""

    gate: str
    variant: str
    sha256: str  # of the files that were loaded, see `artifact_sha256`; "" if there were none
    status: str  # "pass" or "fail"
    case: str = ""
    measured: float | None = None
    limit: float | None = None  # None: recorded, any finite figure passes
    unit: str = ""
    n: int = 0  # how many utterances, files or checks the figure is of
    interval: tuple[float, float] | None = None  # 95 %
    evidence: str = ""
    limits_sha256: str = ""  # of gates.toml
    oracle_digest: str = ""  # which also names checkpoint and corpus
    judge_digest: str = ""  # of the code that ran and judged it, the runtime and its execution provider

    @property
    def passed(self) -> bool:
        return self.status == PASS

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(raw: dict) -> GateResult:
        return GateResult(**{**raw, "interval": tuple(raw["interval"]) if raw["interval"] else None})


def within(measured: float, limit: float | None, *, at_least: bool, n: int) -> str:
    """ "pass" for a finite figure of at least one thing on the right side of its limit; all else is "fail"."""
    if n < 1 or not math.isfinite(measured):
        return FAIL
    if limit is None:
        return PASS
    return PASS if (measured >= limit if at_least else measured <= limit) else FAIL


def artifact_sha256(folder: Path) -> str:
    """Of every file that the manifest lists and of what a runtime loads beside them, as they are now.

    Raises ArtifactError without a manifest; a file that is missing counts as "missing".
    """
    names = [entry.path for entry in Manifest.read(folder).files.values()]
    paths = {name: folder / name for name in names} | {name: folder.parent / name for name in JUDGED_BESIDE}
    return digest_json({name: sha256_file(p) if p.is_file() else "missing" for name, p in sorted(paths.items())})
