"""What a gate result is valid for: the code that judged, and the evaluation that the build was last given."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, ClassVar

import nemoport
from nemoport.errors import ArtifactError
from nemoport.files import digest_json, read_json, sha256_file, write_json
from nemoport.runtimes import runtime_version
from nemoport.schema import CLOSED, Name, Sha256, Text, check, most

# Modules of nemoport/ that run an artifact or read the corpus: with all of validate/, the code that results depend on.
RUN_MODULES = (
    "audio", "buffered", "cache_layout", "caches", "caches_kv", "caches_own", "chunker", "confidence", "ctc", "decode", "events",
    "finite_weights", "frontend", "geometry", "inputs", "interface", "long_audio", "prompt", "resampler", "runtime", "score",
    "session", "sound", "spec", "stream", "tokens", "torch_sum", "wav", "windows", "words",
)  # fmt: skip
RUN_FOLDERS = ("apple", "heads", "runtimes", "speech")
PAGE = Path(__file__).parent / "page"  # shows results; it judges nothing
TODO = "validate again"


@dataclass(frozen=True)
class Evaluation:
    """What the variants of a build were last judged on, in build/results/evaluation.json: a pass counts only for this.

    oracle_digest: of NeMo's runs, and with them of checkpoint and corpus; providers: variant -> its execution provider.
    """

    __pydantic_config__: ClassVar = CLOSED

    oracle_digest: Sha256
    providers: Annotated[dict[Name, Text], most(10_000)]


def judge_digest(target: str, provider: str) -> str:
    """Digest of the code that runs and judges an artifact, of the runtime `target` and of its execution provider.

    Raises importlib's PackageNotFoundError where the runtime or jiwer is not installed.
    """
    package = Path(nemoport.__file__).parent
    files = [package / f"{name}.py" for name in RUN_MODULES]
    for folder in (*(package / name for name in RUN_FOLDERS), Path(__file__).parent):
        files += sorted(file for file in folder.rglob("*.py") if file.parent != PAGE)
    return digest_json([[sha256_file(f) for f in files], provider, runtime_version(target), version("jiwer")])


def write_evaluation(build: Path, oracle_digest: str, providers: dict[str, str]) -> None:
    """Notes what the variants in `providers` are judged on from now on; of other variants the provider stays as it was."""
    try:
        known = read_evaluation(build).providers
    except ArtifactError:  # missing or damaged: what was judged before it is judged again before it is packaged
        known = {}
    write_json(_path(build), {"oracle_digest": oracle_digest, "providers": {**known, **providers}})


def read_evaluation(build: Path) -> Evaluation:
    """Reads what `write_evaluation` noted. Raises ArtifactError if it is missing, or holds something else."""
    path = _path(build)
    return check(Evaluation, read_json(path, TODO), str(path), TODO)


def _path(build: Path) -> Path:
    return build / "results" / "evaluation.json"
