"""The fp32 graph with its outlier channels smoothed: the same function, and the parent of what SmoothQuant quantizes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from nemoport.artifact import ENCODER, Artifact
from nemoport.calibration.cache import calibrate
from nemoport.calibration.probe import threads_for
from nemoport.calibration.samples import SampleCollector
from nemoport.calibration.stream import CalibrationStreams, StreamParameters
from nemoport.errors import ArtifactError, UsageError
from nemoport.graph_file import save_model
from nemoport.progress import Progress
from nemoport.quantize.graph import copy_decoder, load_structure, load_typed, metadata
from nemoport.quantize.precision import Precision, require_corpus
from nemoport.quantize.smoothing import sites, smooth
from nemoport.resources import Needs
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.speech.corpus import Corpus

REPORT = "nemoport.smoothing"  # key in metadata_props: what was chosen for each site


@dataclass(frozen=True)
class Parameters:
    alphas: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    # An explicit Mul must lower the quantized product's error by so much: it reads and writes the whole tensor.
    mul_gain_db: float = 1.0
    max_difference: float = 1e-5  # of encoder frames from the parent's, on a warm stream; 0 is what is measured
    streams: StreamParameters = field(default_factory=StreamParameters)

    def __post_init__(self):
        if not self.alphas or not all(0.0 <= alpha <= 1.0 for alpha in self.alphas):
            raise UsageError(
                "The smoothing exponents cannot be used.",
                expected="one alpha or more, each from 0 to 1",
                found=", ".join(map(str, self.alphas)) or "none",
                todo="correct the recipe",
            )


def convert(parent: Artifact, folder: Path, parameters: Parameters, calibration: Corpus | None, progress: Progress) -> None:
    """Writes the four files of the variant into `folder`.

    Raises CorpusError (no audio, or too little), ArtifactError (the smoothed graph is not the parent's function).
    """
    found = sites(load_structure(parent.encoder))
    streams = CalibrationStreams.of(require_corpus(calibration), parent, parameters.streams)
    tensors = [site.tensor for site in found]
    samples = calibrate(parent, streams, tensors, progress=progress, collect=SampleCollector).collector
    report = {}
    model = load_typed(parent.encoder)  # after the calibration, whose session holds the weights too
    chosen = smooth(model, found, samples.max_abs, samples.rows, parameters.alphas, parameters.mul_gain_db)
    for site, choice in chosen:
        report[site.tensor] = {"matmuls": site.matmuls, "folds_into": site.folds_into, **asdict(choice)}
    smoothed = sum(row["alpha"] is not None for row in report.values())
    progress(f"smoothed: {smoothed} of {len(report)} tensors")
    del model.graph.value_info[:]
    save_model(model, folder / ENCODER, {**metadata(model), REPORT: json.dumps(report)})
    copy_decoder(parent, folder)
    del model, samples  # two sessions follow
    check_equal(parent, folder, streams, parameters.max_difference)


def check_equal(parent: Artifact, folder: Path, streams: CalibrationStreams, limit: float) -> None:
    """Raises ArtifactError if an encoder frame of a warm stream differs from the parent's by more than `limit`."""
    threads = threads_for(parent.encoder)
    sessions = [OnnxSession(parent.spec, at / ENCODER, parent.decoder, threads=threads) for at in (parent.folder, folder)]
    plan, worst = streams.plans[0], 0.0
    states = [streams.initial_state(session, plan) for session in sessions]
    for chunk in streams.chunks(plan):
        frames = []
        for i, session in enumerate(sessions):
            made, _, states[i] = session.encode(chunk.mel[None], np.array([chunk.length], np.int64), states[i])
            frames.append(made)
        worst = max(worst, float(np.abs(frames[0] - frames[1]).max()))
    if not worst <= limit:
        raise ArtifactError(
            "The smoothed encoder is not the function that it was made from.",
            expected=f"encoder frames within {limit:g} of the parent's",
            found=f"{worst:g}",
            todo="report this checkpoint: its graph is not built as smoothing expects",
        )


PRECISION = Precision(
    parameters=Parameters(),
    convert=convert,
    needs=Needs(memory=2.1, held=2.0, disk=1.0, kept=0.15),
    needs_calibration=True,
)
