"""Calibration audio: read when a recipe needs it, and refused where it would calibrate for something other than speech."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nemoport.errors import CorpusError
from nemoport.progress import Progress, silent
from nemoport.sound import open_sound
from nemoport.speech.corpus import Corpus, print_repeats, read_corpus

SILENT = 1e-3  # of full scale


def check_calibration(corpus: Corpus) -> None:
    """Raises CorpusError unless there is speech in the audio and every file is of the model's sample rate or more."""
    narrow = [(u.id, rate) for u in corpus.utterances if (rate := open_sound(u.path).rate_hz) < u.sample_rate_hz]
    if narrow:
        raise CorpusError(
            f"{corpus.path} cannot be calibrated on.",
            expected=f"recordings of {corpus.utterances[0].sample_rate_hz} Hz or more: lower ones leave bands empty",
            found=f"{len(narrow)} of less, such as {narrow[0][0]} with {narrow[0][1]} Hz",
            todo="take them out, or record others",
        )
    if all(np.abs(u.samples()).max(initial=0.0) < SILENT for u in corpus.utterances):
        raise CorpusError(
            f"{corpus.path} cannot be calibrated on.",
            expected="speech",
            found=f"nothing above {SILENT:g} of full scale in any of {len(corpus.utterances)} recordings",
            todo="give recordings of people speaking",
        )


@dataclass
class CalibrationAudio:
    """A manifest that is read when a recipe needs it, once for a variant and its parents. manifest: None if none was given."""

    manifest: Path | None
    _read: Corpus | None = None

    def corpus(self, variant: str, sample_rate_hz: int, progress: Progress = silent) -> Corpus:
        """Reads and checks the manifest, for `variant` and a model of this sample rate; prints what is in it twice.

        Raises CorpusError as `read_corpus` and `check_calibration`, and if there is no manifest.
        """
        if self.manifest is None:
            raise CorpusError(
                f"{variant} needs calibration audio.",
                expected="a NeMo manifest of speech that is not in the evaluation set",
                found="none",
                todo="give one with --calibration",
            )
        if self._read is None:
            self._read = read_corpus(self.manifest, sample_rate_hz)
            check_calibration(self._read)
            print_repeats(self._read, progress)
        return self._read
