"""Does what a plan states. Each stage reuses what the same inputs made before, so that a run that was stopped goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nemoport.errors import ArtifactError, OutputError
from nemoport.files import scratch_folder
from nemoport.package.assemble import package
from nemoport.package.links import link_equal
from nemoport.package.manifest import PackageManifest, hash_files
from nemoport.package.verify import verify
from nemoport.pipeline.plan import Plan
from nemoport.progress import Progress, Step, step
from nemoport.resources import shares_blocks
from nemoport.validate.oracle import record_oracle
from nemoport.validate.run import Verdict, validate


@dataclass(frozen=True)
class Outcome:
    """packages: layout -> folder, of those that were written and verified. unpackaged: layout -> why there is none."""

    verdict: Verdict
    packages: dict[str, Path]
    unpackaged: dict[str, str]

    @property
    def passed(self) -> bool:
        return bool(self.verdict) and not self.unpackaged


def run_plan(plan: Plan, progress: Progress) -> Outcome:
    """Records NeMo's runs, builds and judges every variant, packages and verifies what passed.

    A variant that fails its gates is left out of the packages, and the rest goes on. Raises as the stages: CheckpointError,
    CorpusError, ArtifactError, ResourceError, OutputError.
    """
    total, done = plan.total.seconds, 0.0

    def begin(stage: str) -> None:
        nonlocal done
        progress(Step("all stages", done, total, "s predicted"))
        done += plan.estimates[stage].seconds

    begin("oracle")
    evaluation, calibration = plan.speech.evaluation, plan.speech.calibration
    record_oracle(plan.checkpoint, evaluation, plan.build, progress)
    for variant in plan.variants:
        begin(variant.name)
        variant.build(plan.checkpoint, plan.build, calibration.path, progress)
    begin("validate")
    names = [variant.name for variant in plan.variants]
    verdict = validate(
        plan.checkpoint, plan.build, evaluation, names, calibration, jobs=plan.jobs, baseline=False, progress=progress
    )
    packages: dict[str, Path] = {}
    unpackaged: dict[str, str] = {}
    if plan.packages:
        begin("package")
    for layout, folder in plan.packages.items():
        try:
            with step(f"package: {layout}", progress), _replaced(folder, plan.checkpoint.sha256) as place:
                package(plan.build, place, layout=layout, with_plot=True, progress=progress, **plan.card)
                verify(place, progress=progress)
            packages[layout] = folder
        except ArtifactError as error:  # no variant of this layout passed
            unpackaged[layout] = error.found or error.what
    if len(packages) > 1 and not shares_blocks(plan.build):
        link_equal(list(packages.values()))
    progress(Step("all stages", total, total, "s predicted"))
    return Outcome(verdict, packages, unpackaged)


def check_replaceable(folder: Path, checkpoint_sha256: str) -> bool:
    """Returns whether `folder` holds a package of this checkpoint, which a run may replace; False if there is nothing. Raises
    OutputError where it holds anything else."""
    if not folder.exists():
        return False
    try:
        if PackageManifest.read(folder).checkpoint_sha256 == checkpoint_sha256:
            return True
        found = "a package of another checkpoint"
    except ArtifactError as error:
        found = error.found or error.what
    todo = "remove it, or choose another place with --dist"
    raise OutputError(f"{folder} exists already.", expected="nothing, or a package of this checkpoint", found=found, todo=todo)


@contextmanager
def _replaced(folder: Path, checkpoint_sha256: str) -> Iterator[Path]:
    """Yields where its block writes the package: `folder`, or beside an earlier package, whose place it takes when the block ends
    well. However a run ends, `folder` holds one of them.

    Raises OutputError as `check_replaceable`, and for a package whose files were changed, which are not made again.
    """
    if not check_replaceable(folder, checkpoint_sha256):
        yield folder
        return
    if hash_files(folder) != PackageManifest.read(folder).files:
        todo = "remove it, or choose another place with --dist"
        raise OutputError(f"{folder} was changed.", expected="the files of its manifest", found="others", todo=todo)
    with scratch_folder(folder.parent) as scratch:
        yield scratch / folder.name
        folder.rename(scratch / "earlier")
        (scratch / folder.name).rename(folder)
