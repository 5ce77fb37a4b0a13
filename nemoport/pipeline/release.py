"""A published package as a release that a build is held to: a folder, or its name on the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemoport.errors import ArtifactError, first_line
from nemoport.export.checkpoint import Checkpoint
from nemoport.hub_id import split_hub_id
from nemoport.hub_package import variant_folder
from nemoport.package.manifest import NAME, PackageManifest
from nemoport.package.opening import artifact_folders
from nemoport.progress import Progress, silent, step
from nemoport.speech.corpus import read_corpus
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.limits import limits_of
from nemoport.validate.oracle import record_oracle
from nemoport.validate.regression import gone, judged_side, read_side, regressions


@dataclass(frozen=True)
class Release:
    """A published package. place: its folder, or its name on the Hub."""

    place: str
    manifest: PackageManifest

    def folder(self, variant: str) -> Path:
        """Returns the folder of a variant, downloaded if it is on the Hub. Raises ArtifactError, UsageError."""
        here = Path(self.place)
        if not here.is_dir():
            return variant_folder(self.place, variant)
        return artifact_folders(here)[variant]


def read_release(place: str) -> Release:
    """Reads the manifest of a package. place: a folder, or organisation/name of a native package on the Hub, with @revision or
    without. Raises ArtifactError."""
    if Path(place).is_dir() or (found := split_hub_id(place)) is None:
        return Release(place, PackageManifest.read(Path(place)))
    try:
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(found[0], NAME, revision=found[1] or None)
    except Exception as error:  # the classes of huggingface_hub's HTTP client differ from version to version
        raise ArtifactError(
            f"The release {place} cannot be had.",
            expected="a folder, or a package on the Hub, and huggingface_hub",
            found=first_line(error),
            todo="check the name, the revision, the token and the network",
        ) from error
    return Release(place, PackageManifest.read(Path(path).parent))


def against_release(
    checkpoint: Checkpoint,
    build: Path,
    corpus: Path,
    release: Release,
    variants: Sequence[str],
    progress: Progress = silent,
) -> dict[str, list[GateResult]]:
    """Compares variants of a build, which were validated on `corpus`, with those of a release, which are judged on it now.

    variants: those of the build. Returns variant -> results; a variant that only the build has is new and has none, one that only
    the release has fails. Results of the release are kept in build/results/release/. Raises as `judge` and `regressions`.
    """
    evaluation = read_corpus(corpus, checkpoint.spec.frontend.sample_rate_hz)
    oracle = record_oracle(checkpoint, evaluation, build, progress)
    kept = build / "results" / "release" / release.manifest.digest[:16]
    same = release.manifest.checkpoint_sha256 == checkpoint.sha256
    found: dict[str, list[GateResult]] = {}
    for variant in release.manifest.variants:
        if variant not in variants:
            found[variant] = [gone(variant)]
            continue
        with step(f"{variant}: the release", progress):
            context = Context(release.folder(variant), limits_of(variant), checkpoint, evaluation, oracle, progress=progress)
            before = judged_side(context, kept / f"{variant}.jsonl")
        found[variant] = regressions(variant, read_side(build, variant), before, same_checkpoint=same)
    return found
