"""The result that a gate returns, and the digest of the files that it judged."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from nemoport.artifact import Manifest
from nemoport.files import digest_json, sha256_file
from nemoport.schema import CLOSED, check, whole

PASS, FAIL = "pass", "fail"
STAMPS = ("variant", "sha256", "limits_sha256", "oracle_digest", "judge_digest")  # fields of a result: what it is valid for
Figure = Annotated[float, Field(strict=True)]  # NaN and infinities too, which fail
# Files that a runtime loads besides the graphs; languages.json is there only for a model with a prompt.
SHARED_FILES = ("config.json", "shared/filterbank.bin", "shared/tokens.txt", "shared/languages.json")


@dataclass(frozen=True)
class GateResult:
    """One figure that a gate judged. `case` names the figure among those of its gate, e.g. "lookahead 6, full"."""

    __pydantic_config__: ClassVar = CLOSED

    gate: str
    variant: str
    sha256: str  # of the files that were loaded, see `artifact_sha256`; "" if there were none
    status: Annotated[str, Field(pattern="^(pass|fail)$")]
    case: str = ""
    measured: Figure | None = None
    limit: Figure | None = None  # None: recorded, any finite figure passes
    unit: str = ""
    n: Annotated[int, whole(0, 10**12)] = 0  # how many utterances, files or checks the figure was measured on
    interval: tuple[Figure, Figure] | None = None  # 95 %
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
    def from_dict(raw: object, path: Path) -> GateResult:
        """The inverse of `to_dict`. path: of the file, for the error. Raises ArtifactError for another object."""
        return check(GateResult, raw, str(path), "remove it and validate again")


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
