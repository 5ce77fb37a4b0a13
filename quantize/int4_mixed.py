"""4 bits with the most costly groups in 8: the smallest variant whose encoder frames reach a given SNR to fp32's.

The groups are chosen on calibration audio, never on the audio of the gates: the cost of each alone in 4 bits is measured
(see sensitivity.py), then those that cost most for their bytes go to 8 bits until the encoder's frames, all groups
together, are within `min_snr_db` of the parent's.

The 4 bits are nearer than int4-weight's: blocks have zero points, and their integers and scales are decided again (descent.py).
Scales and all other weights of the encoder are in fp16, as the decoder's weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.artifact import Artifact
from nemoport.calibration.stream import CalibrationStreams
from nemoport.errors import UsageError
from nemoport.progress import Progress
from nemoport.quantize import int4_weight
from nemoport.quantize.blocks import LIMITS, Blocks, round_nearest, write_stored
from nemoport.quantize.descent import descended
from nemoport.quantize.graph import Weights, load_structure, load_typed
from nemoport.quantize.precision import Precision, require_corpus
from nemoport.quantize.sensitivity import Cost, SensitivityProbe, groups, measure
from nemoport.resources import Needs
from nemoport.speech.corpus import Corpus

GUESSES = 3  # numbers of groups that are tried by what each group adds, before bisection
REPORT = "nemoport.mixed"  # key in metadata_props: the groups in 8 bits, and what was measured


@dataclass(frozen=True)
class Parameters(int4_weight.Parameters):
    # Tokens that differ from fp32's: 0.41 % of 469 utterances with 31, 0.34 % of 869 with 32; see bench/accuracy.md.
    min_snr_db: float = 31.0
    high_bits: int = 8
    high_block: int = 128
    probe_streams: int = 3  # of the calibration, on which each measurement is run; see sensitivity.py
    probe_frames: int = 42  # encoder frames of each stream, where the cost of a group alone is measured
    together: bool = True  # calibration streams, in batches
    rounds: int = 3  # of descent.py

    def rounded(self, weight: np.ndarray, gram: np.ndarray | None) -> Blocks:
        if gram is None:
            return round_nearest(weight, self.bits, self.block)
        return descended(weight, gram, self.bits, self.block, self.rounds, self.damping)


@dataclass(frozen=True)
class Mix:
    """The weights of a model in both precisions and what each group costs, from which a mix is chosen.

    low, high: MatMul node -> its weight in 4 and in 8 bits; members: group -> its MatMul nodes.
    """

    model: Any  # an onnx.ModelProto, the parent's encoder without its weights, which would be held beside those of a session
    low: Mapping[str, Blocks]
    high: Mapping[str, Blocks]
    members: Mapping[str, list[str]]
    probe: SensitivityProbe
    costs: Mapping[str, Cost]  # of each group alone in the lower precision

    def blocks(self, promoted: Sequence[str]) -> dict[str, Blocks]:
        """MatMul node -> its weight, in 8 bits in the groups `promoted`."""
        raised = {name for group in promoted for name in self.members[group]}
        return {name: self.high[name] if name in raised else self.low[name] for name in self.low}

    def cost(self, promoted: Sequence[str]) -> Cost:
        """The cost of all groups together, with the groups `promoted` in 8 bits."""
        return self.probe.cost(dequantized(Weights(self.model), self.blocks(promoted)))

    def ranked(self) -> list[str]:
        """Groups by the noise that each adds per weight, most first."""
        sizes = {group: sum(self.low[name].values.size for name in names) for group, names in self.members.items()}
        return sorted(self.costs, key=lambda group: (-self.costs[group].noise / sizes[group], group))

    def expected(self, order: Sequence[str]) -> np.ndarray:
        """The noise where the first n groups of `order` are in 8 bits, n from 0 to all: f64 [groups + 1]. As if the noises of the
        others added up and these had none."""
        return np.append(np.cumsum([self.costs[group].noise for group in reversed(order)])[::-1], 0.0)


def convert(parent: Artifact, folder: Path, parameters: Parameters, calibration: Corpus | None, progress: Progress) -> None:
    """Writes the four files of the variant into `folder`.

    Raises CorpusError (no audio, or too little), UsageError (8 bits everywhere do not reach `min_snr_db`), ArtifactError.
    """
    mix = prepare(parent, parameters, require_corpus(calibration), progress)
    order = mix.ranked()
    count, cost = fewest_promotions(mix.expected(order), lambda n: mix.cost(order[:n]), parameters.min_snr_db, progress)
    progress(f"int4-mixed: {count} of {len(order)} groups in {parameters.high_bits} bits: {cost.snr_db:.1f} dB")
    report = {"groups_in_8_bits": order[:count], "snr_db": cost.snr_db, "tokens_different": cost.tokens}
    promoted = {name for group in order[:count] for name in mix.members[group]}
    bits = {name: parameters.high_bits if name in promoted else parameters.bits for name in mix.low}
    stored = {name: (blocks, bits[name]) for name, blocks in mix.blocks(order[:count]).items()}
    write_stored(load_typed(parent.encoder), stored, parent, folder, {REPORT: json.dumps(report)}, halves=True)


def prepare(parent: Artifact, parameters: Parameters, calibration: Corpus, progress: Progress) -> Mix:
    """Rounds every weight to both precisions and measures each group, or reads the costs that were measured before."""
    grams = int4_weight.grams_of(parent, parameters, calibration, progress, parameters.together)
    model = load_typed(parent.encoder)
    low = int4_weight.rounded(model, grams, parameters, progress)
    weights = Weights(model)
    members = groups(list(low))
    streams = CalibrationStreams.of(calibration, parent, parameters.streams)
    plans = streams.plans[:: max(1, len(streams.plans) // parameters.probe_streams)][: parameters.probe_streams]
    probe = SensitivityProbe(parent, streams, plans)
    # The parameters that decide how many groups go to 8 bits do not change what each costs in 4.
    measured_with = {k: v for k, v in asdict(parameters).items() if k not in ("min_snr_db", "high_bits", "high_block")}
    inputs = {
        "parent_digest": parent.manifest.digest,
        "corpus_digest": calibration.digest,
        "run": "in batches, at the longest lookahead",
        "parameters": json.loads(json.dumps({**measured_with, "integers": LIMITS[parameters.bits]})),
    }

    def changed(group: str) -> dict[str, np.ndarray]:
        return {name: low[name].dequantized() - weights.of(name) for name in members[group]}

    kept = parent.folder.parent / "sensitivity"
    costs = measure(probe, inputs, list(members), changed, parameters.probe_frames, kept, progress)
    high = {name: round_nearest(weights.of(name), parameters.high_bits, parameters.high_block) for name in low}
    return Mix(load_structure(parent.encoder), low, high, members, probe, costs)


def dequantized(weights: Weights, blocks: Mapping[str, Blocks]) -> dict[str, np.ndarray]:
    """The weights of MatMul nodes as they are after rounding: name of the initializer -> f32 [in, out]."""
    return {weights.node(name).input[1]: stored.dequantized().astype(np.float32) for name, stored in blocks.items()}


def fewest_promotions(
    expected: np.ndarray, cost_of: Callable[[int], Cost], min_snr_db: float, progress: Progress
) -> tuple[int, Cost]:
    """The smallest n for which cost_of(n) has `min_snr_db`, and its cost. expected: its noise for n from 0 to all, see `Mix`.

    It is asked where the expected noise, by the share that the last one asked had of it, reaches the goal, and by bisection where
    GUESSES of these do not end it. More groups in 8 bits are assumed to be never worse. Raises UsageError if all have less.
    """
    count, goal = len(expected) - 1, 10 ** (-min_snr_db / 10)
    low, high, asked, share = 0, count + 1, 0, 1.0
    found = cost = Cost(np.inf, 0.0)
    while low < min(high, count + 1):
        last = min(high - 1, count)
        reached = int(np.searchsorted(-share * expected, -goal))
        middle = min(max(reached, low), last) if asked < GUESSES else (low + last) // 2
        cost, asked = cost_of(middle), asked + 1
        progress(f"int4-mixed: {middle} of {count} groups higher: {cost.snr_db:.1f} dB, {100 * cost.tokens:.2f} % of tokens")
        if expected[middle] > 0:
            share = cost.noise / expected[middle]
        if cost.snr_db >= min_snr_db:
            high, found = middle, cost
        else:
            low = middle + 1
    if high > count:
        raise UsageError(
            "The mixed recipe cannot be met.",
            expected=f"encoder frames within {min_snr_db:g} dB of fp32's",
            found=f"{cost.snr_db:.1f} dB with every group in the higher precision",
            todo="lower min_snr_db, or use int8-weight",
        )
    return high, found


PRECISION = Precision(
    parameters=Parameters(),
    convert=convert,
    needs=Needs(memory=3.2, held=2.9, disk=0.15, kept=1.6),
    needs_calibration=True,
    made_of=attrgetter("parent"),
)
