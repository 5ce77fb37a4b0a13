"""What a run will do, and with what: stated before it begins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from nemoport.errors import UsageError
from nemoport.export.checkpoint import Checkpoint, read_checkpoint
from nemoport.package.layouts import load_layout
from nemoport.package.terms import BASE_MODELS, resolve_terms
from nemoport.pipeline.estimate import Estimate, estimates, total
from nemoport.pipeline.speech import OF_A_CLONE, Speech, choose_speech
from nemoport.pipeline.variants import ONNX, PlannedVariant, planned_variants
from nemoport.resources import free_memory
from nemoport.spec import CTC
from nemoport.validate.limits import limits_of

NATIVE = "native"
LARGE_BYTES = 1 << 30  # of weights, from which on the processes of several variants are not started by themselves


class Card(TypedDict, total=False):
    """What the card of a package needs: keyword arguments of `nemoport.package.assemble.package`."""

    licence: str | None
    licence_url: str | None
    licence_holder: str | None
    base_model: str | None
    language: str | None


@dataclass(frozen=True)
class Wanted:
    """What the user asks for; empty values leave the choice to `make_plan`.

    corpus, calibration: NeMo manifests, or folders of audio. precisions, targets, caches: of `planned_variants`. layouts: of
    packages. quick: the smallest set that is worth having. head: of a hybrid checkpoint. windows_s: of `planned_variants`.
    """

    corpus: Path | None = None
    calibration: Path | None = None
    precisions: Sequence[str] = ()
    targets: Sequence[str] = ()
    caches: Sequence[str] = ()
    layouts: Sequence[str] = ()
    quick: bool = False
    jobs: int = 0
    head: str = ""
    windows_s: Sequence[int] = ()
    card: Card = field(default_factory=Card)


@dataclass(frozen=True)
class Plan:
    """packages: layout -> its folder, empty where the checkpoint's licence is not known. estimates: stage -> what it takes.
    notes: what was chosen for the user and what it costs, a sentence each."""

    checkpoint: Checkpoint
    build: Path
    speech: Speech
    variants: tuple[PlannedVariant, ...]
    packages: dict[str, Path]
    jobs: int
    estimates: dict[str, Estimate]
    notes: tuple[str, ...]
    card: Card

    @property
    def total(self) -> Estimate:
        return total(self.estimates)

    def is_built(self, variant: str) -> bool:
        """Whether the variant is there; only when it is built does it show whether the same inputs made it."""
        return (self.build / variant / "manifest.json").is_file()


def make_plan(source: str, build: Path | None = None, dist: Path | None = None, wanted: Wanted | None = None) -> Plan:
    """Reads the checkpoint and the speech and chooses what was not asked for. Writes nothing, but downloads a Hub id.

    source: a .nemo file or Hub id. build, dist: by default build/NAME and dist/NAME in the working folder. Raises
    CheckpointError, CorpusError, AudioError; UsageError for names that do not exist or do not go together.
    """
    wanted = wanted or Wanted()
    checkpoint = read_checkpoint(source, wanted.head)
    name = checkpoint.name if not checkpoint.base_model else checkpoint.base_model.split("@")[0].split("/")[1]
    if checkpoint.hybrid and checkpoint.spec.head == CTC:  # the transducer of the same file has a build too
        name += f"-{CTC}"
    build, dist = build or Path("build", name), dist or Path("dist", name)
    speech = choose_speech(checkpoint.spec, wanted.corpus, wanted.calibration)
    targets = tuple(wanted.targets) or (ONNX,)
    variants = planned_variants(checkpoint.spec, targets, wanted.precisions, wanted.caches, wanted.quick, wanted.windows_s)
    card = wanted.card
    if _is_ours(checkpoint) and not card.get("licence"):
        card = Card({**card, "licence": "apache-2.0"})
    packages, notes = _packages(checkpoint, dist, variants, wanted.layouts, card)
    weights = checkpoint.weights_bytes
    jobs = wanted.jobs or _jobs(weights, len(variants))
    found = estimates(checkpoint.spec, weights, (speech.evaluation, speech.calibration), variants, jobs)
    if wanted.quick:
        left = [v.name for v in planned_variants(checkpoint.spec, targets) if v.name not in {one.name for one in variants}]
        notes.append(f"quick: not built and not judged: {', '.join(left)}; every gate of the others is run in full")
    return Plan(checkpoint, build, speech, tuple(variants), packages, jobs, found, (*speech.warnings, *notes), card)


def _packages(
    checkpoint: Checkpoint, dist: Path, variants: Sequence[PlannedVariant], layouts: Sequence[str], card: Card
) -> tuple[dict[str, Path], list[str]]:
    """Returns layout -> folder, and notes. Raises UsageError."""
    names = layouts or [NATIVE if one == ONNX else one for one in dict.fromkeys(v.target for v in variants)]
    for name in names:
        layout = load_layout(name)
        runtimes = {v.name: limits_of(v.name).target for v in variants}
        if not any(of == layout.runtime and layout.takes(v) for v, of in runtimes.items()):
            raise UsageError(
                f"No variant fits the layout {name}.",
                expected=f"one of {layout.runtime}: {layout.taken}",
                found=", ".join(runtimes),
                todo="add --targets, --caches or --precisions, or leave the layout out",
            )
        if problems := layout.problems(checkpoint.spec, checkpoint.pieces):  # now, not after hours
            raise UsageError(
                f"The consumer of the layout {name} cannot run this model.",
                expected="a model that it can run",
                found="; ".join(problems),
                todo="leave the layout out",
            )
    base = (card.get("base_model") or checkpoint.base_model).partition("@")[0]
    if not (card.get("licence") or card.get("licence_url") or base in BASE_MODELS):
        return {}, ["no package: the checkpoint's licence is not known. State it with --license; a later run adds the package."]
    resolve_terms(
        checkpoint.base_model,
        base_model=card.get("base_model"),
        licence=card.get("licence"),
        licence_url=card.get("licence_url"),
        holder=card.get("licence_holder"),
        language=card.get("language"),
    )
    return {name: dist if name == NATIVE else dist.with_name(f"{dist.name}-{name}") for name in names}, []


def _is_ours(checkpoint: Checkpoint) -> bool:
    """Whether it is one of a clone's, which nemoport's own recipe trained."""
    return checkpoint.path.resolve().parent == OF_A_CLONE.parent / "checkpoints"


def _jobs(weights: int, variants: int) -> int:
    """Variants that are judged at once: as many as there are cores, if their weights are small and fit into the free memory."""
    free = free_memory()
    fitting = variants if free is None else max(1, int(free[0] // (4 * weights)))
    return max(1, min(os.cpu_count() or 1, variants, fitting)) if weights < LARGE_BYTES else 1
