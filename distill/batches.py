"""Batches of log-mel frames: recordings joined to rows of one length, drawn by the number of the step, so that a run that is
taken up draws what it would have drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nemoport.distill.conditions import Conditions
from nemoport.files import digest_json
from nemoport.frontend import LogMel, mel_filterbank
from nemoport.progress import Progress, Step
from nemoport.spec import ModelSpec
from nemoport.speech.corpus import Corpus, prompts


@dataclass(frozen=True)
class Batch:
    """mel: f32 [B, n_mels, T]; lookahead: in encoder frames; prompts: i64 [B] of a model with a prompt, or None."""

    mel: np.ndarray
    lookahead: int
    prompts: np.ndarray | None


class Batches:
    """Draws batches. Frames are computed once and kept in half precision in `folder`, mapped and not held in memory.

    corpus: audio of the model's rate; texts are not used. noisy_share: of the rows that are made lower or noisy. Raises
    CorpusError (a model with a prompt needs each recording's language), AudioError.
    """

    def __init__(self, corpus: Corpus, spec: ModelSpec, folder: Path, seed: int, noisy_share: float, progress: Progress):
        self._lookaheads = spec.require_streaming().lookaheads
        self._seed, self._noisy_share = seed, noisy_share
        self._conditions = Conditions(spec.frontend, seed)
        slots = prompts(corpus, spec)
        self._frames, ends = _features(corpus, spec, folder, progress)
        self._spans = list(zip([0, *ends[:-1]], ends, strict=True))
        self._of_slot: dict[int | None, list[int]] = {}
        for number, slot in enumerate(slots):
            self._of_slot.setdefault(slot, []).append(number)
        self._slots = slots
        self.hop_s = spec.frontend.hop_samples / spec.frontend.sample_rate_hz

    def at(self, step: int, batch_seconds: float, row_seconds: float) -> Batch:
        """Draws the batch of a step."""
        random = np.random.default_rng([self._seed, step])
        frames = int(row_seconds / self.hop_s)
        rows, slots = [], []
        for _ in range(max(1, round(batch_seconds / row_seconds))):
            first = int(random.integers(len(self._spans)))
            slots.append(self._slots[first])
            row = self._row(random, first, frames)
            rows.append((self._conditions.changed(row, random) if random.random() < self._noisy_share else row).T)
        lookahead = self._lookaheads[int(random.integers(len(self._lookaheads)))]
        return Batch(np.stack(rows), lookahead, None if slots[0] is None else np.array(slots, np.int64))

    def _row(self, random: np.random.Generator, number: int, frames: int) -> np.ndarray:
        """Frames f32 [frames, n_mels]: of one recording, then of others with the same prompt."""
        parts, missing = [], frames
        others = self._of_slot[self._slots[number]]
        while missing > 0:
            start, end = self._spans[number]
            start += int(random.integers(max(1, end - start - frames + 1)))  # a part of a long recording
            parts.append(self._frames[start : min(end, start + missing)].astype(np.float32))
            missing -= len(parts[-1])
            number = others[int(random.integers(len(others)))]
        return np.concatenate(parts)


def _features(corpus: Corpus, spec: ModelSpec, folder: Path, progress: Progress) -> tuple[np.ndarray, Sequence[int]]:
    """The frames f16 [n, n_mels] of all recordings behind each other, and where each ends."""
    hop, n_mels = spec.frontend.hop_samples, spec.frontend.n_mels
    counts = [round(u.seconds * u.sample_rate_hz) // hop for u in corpus.utterances]
    path = folder / f"frames-{digest_json([corpus.digest, str(spec.frontend)])[:16]}.f16"
    ends = np.cumsum(counts).tolist()
    if not path.is_file() or path.stat().st_size != ends[-1] * n_mels * 2:
        compute = LogMel(spec.frontend, mel_filterbank(spec.frontend))
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as file:
            for number, utterance in enumerate(corpus.utterances):
                mel = compute.whole(utterance.samples())
                file.write(np.ascontiguousarray(mel[:, : counts[number]].T, np.float16).tobytes())
                if number % 100 == 0:
                    progress(Step("frames", number, len(counts), "recordings"))
        partial.replace(path)
        progress(Step("frames", len(counts), len(counts), "recordings"))
    return np.memmap(path, np.float16, "r", shape=(ends[-1], n_mels)), ends
