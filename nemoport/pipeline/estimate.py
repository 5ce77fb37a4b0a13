"""What a run will take: time, memory and disk, before it begins.

Time is processor time divided by the cores. A stage has two constants, for what does not grow with the weights and for what does.
The first were fitted to runs of the 5 M parameter reference checkpoints, the second to the times of chunks (bench/README.md) and
of conversions (docs/laptop.md) at the published 0.6B dimensions, on two cores of an AMD EPYC. Whole runs of `validate` were not
timed at 0.6B.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from nemoport.buffered import ChunkContext
from nemoport.pipeline.variants import PlannedVariant
from nemoport.spec import Lookahead, ModelSpec
from nemoport.speech.corpus import Corpus
from nemoport.validate import nemo_process
from nemoport.validate.limits import Limits, limits_of

MOST_CORES = 8  # that one stream makes use of
NEMO_START_S = 15.0  # processor seconds: importing NeMo and restoring a checkpoint
NEMO_S, NEMO_S_GB = 0.018, 0.38  # processor seconds a second of audio: for any model, and more for each GB of fp32 weights
RUN_S, RUN_S_GB = 0.010, 0.30  # the same in onnxruntime, fp32
CONVERT_S, CONVERT_S_GB = 4.0, 60.0  # processor seconds a variant
CALIBRATED_S_GB = 250.0  # in place of CONVERT_S_GB, beside the streams: of smoothing, ranges and rounding (docs/laptop.md)
EXTRA_AUDIO_S = 900.0  # of the gates longform, conditions and cost
LOOKED_THROUGH = 1.3  # of the calibration audio: streams of it in several states


@dataclass(frozen=True)
class Estimate:
    """Of a stage, or of a whole run. seconds: on this machine; memory, disk: bytes, of the peak and of what is written."""

    seconds: float
    memory: float
    disk: float


def estimates(
    spec: ModelSpec, weights: int, speech: tuple[Corpus, Corpus], variants: Sequence[PlannedVariant], jobs: int
) -> dict[str, Estimate]:
    """Stage -> what it takes: "oracle", the name of each variant (building it), "validate", "package".

    weights: bytes of the checkpoint in fp32. speech: evaluation, calibration. jobs: variants that are judged at once.
    """
    evaluation, calibration = speech
    gigabytes, cores = weights / 1e9, min(os.cpu_count() or 1, MOST_CORES)
    recorded = evaluation.seconds * sum(_encoded(r) * (2 if isinstance(r, int) and r else 1) for r in spec.lookaheads)
    needs = nemo_process.NEEDS["record"]
    nemo = NEMO_START_S + recorded * (NEMO_S + NEMO_S_GB * gigabytes)
    found = {"oracle": Estimate(nemo / cores, needs.memory * weights, 0.0)}
    judged = sizes = 0.0
    for variant in variants:
        limits = limits_of(variant.name)
        ratio = limits.gates["cost"].values.get("max_bytes_ratio", 1.0)
        work = CONVERT_S + (CALIBRATED_S_GB if variant.needs_calibration else CONVERT_S_GB) * gigabytes
        if variant.needs_calibration:
            work += LOOKED_THROUGH * calibration.seconds * (RUN_S + RUN_S_GB * gigabytes)
        size = ratio * weights
        disk = size + variant.needs.kept * weights
        found[variant.name] = Estimate(work / cores, variant.needs.memory * weights, disk)
        judged += _judged_audio_s(limits, spec, evaluation) * (RUN_S + RUN_S_GB * gigabytes * max(ratio, 0.4))
        sizes += size
    found["validate"] = Estimate(judged / cores, (jobs + needs.memory) * weights, 0.0)
    found["package"] = Estimate(1.0 + 10 * sizes / 1e9, 0.0, sizes)
    return found


def total(stages: dict[str, Estimate]) -> Estimate:
    """Returns the sum of times and disk, and the largest memory."""
    parts = list(stages.values())
    return Estimate(sum(p.seconds for p in parts), max(p.memory for p in parts), sum(p.disk for p in parts))


def _judged_audio_s(limits: Limits, spec: ModelSpec, evaluation: Corpus) -> float:
    """Seconds of audio that the gates of a variant run: each lookahead by both flush rules, and a part of it in three batches."""
    passes = sum(map(_encoded, spec.lookaheads)) * (1 if spec.streaming is None else 2)
    batched = min(1.0, limits.get("batch", "max_utterances") / len(evaluation.utterances)) if "batch" in limits.required else 0.0
    return evaluation.seconds * passes * (1 + 3 * batched) + EXTRA_AUDIO_S


def _encoded(lookahead: Lookahead) -> float:
    """How often each second of audio is encoded: windows overlap."""
    return lookahead.encoded_ratio if isinstance(lookahead, ChunkContext) else 1.0
