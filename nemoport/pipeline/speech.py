"""The speech of a run: the user's, or that of a clone of nemoport."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import nemoport
from nemoport.errors import CorpusError
from nemoport.spec import ModelSpec
from nemoport.speech.corpus import Corpus, check_disjoint, check_each_once, read_corpus

OF_A_CLONE = Path(nemoport.__file__).resolve().parent.parent / "reference" / "audio"
COMMITTED = {
    "streaming-prompt-rnnt": "-multi",
    "offline-tdt": "-tdt",
    "offline-rnnt": "-tdt",
}  # by kind; others: ""


@dataclass(frozen=True)
class Speech:
    """evaluation, calibration: corpora without common audio. warnings: what the choice costs, for the user."""

    evaluation: Corpus
    calibration: Corpus
    warnings: tuple[str, ...] = ()


def choose_speech(spec: ModelSpec, evaluation: Path | None, calibration: Path | None, clone: Path = OF_A_CLONE) -> Speech:
    """Reads the manifests or folders, or in their place those of a clone.

    Raises CorpusError where there is no clone, for speech that cannot be used, and for audio that is in both; AudioError."""
    chosen, warnings = [], []
    for given, stem, option in ((evaluation, "eval", "--corpus"), (calibration, "calibration", "--calibration")):
        manifest = given or clone / f"{stem}{COMMITTED.get(spec.kind, '')}.jsonl"
        if given is None:
            if not manifest.is_file():
                raise CorpusError(
                    "There is no speech to work on.",
                    expected=f"{option} with a NeMo manifest of recordings, which only a clone of nemoport can do without",
                    found=f"none given, and no {manifest}",
                    todo=f"record or collect some minutes of speech with transcripts, and give {option}",
                )
            warnings.append(WARNINGS[option])
        chosen.append(read_corpus(manifest, spec.frontend.sample_rate_hz))
    speech = Speech(chosen[0], chosen[1], tuple(warnings))
    without = sum(not utterance.text for utterance in speech.evaluation.utterances)
    if without == len(speech.evaluation.utterances):
        raise CorpusError(
            f"{speech.evaluation.path} has no transcripts.",
            expected="`text` in the lines of a manifest, or a.txt beside a.wav in a folder",
            found=f"{without} recordings without",
            todo="add them",
        )
    if without:
        speech = replace(speech, warnings=(*speech.warnings, NO_TEXT.format(without, speech.evaluation.path)))
    check_each_once(speech.evaluation)
    check_disjoint(speech.calibration, speech.evaluation)
    return speech


NO_TEXT = "{} recordings of {} have no transcript: each word there counts as an error, of NeMo and of every variant."
WARNINGS = {
    "--corpus": "no --corpus: judged on nemoport's own clips, minutes of synthetic sentences. They show that the conversion is "
    "NeMo's model, token by token; their word error rate is not that of your speech.",
    "--calibration": "no --calibration: static INT8 and 4 bits are calibrated on nemoport's own clips. Speech as your users' "
    "gives better ranges, above all in another language or with noise.",
}
