"""Audio with transcripts, of NeMo manifests; hashed by the decoded samples, so that overlap shows despite file names."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from nemoport.audio import read_audio
from nemoport.errors import CorpusError, UsageError
from nemoport.files import digest_json
from nemoport.progress import Progress
from nemoport.spec import ModelSpec
from nemoport.speech.folder import folder_rows
from nemoport.speech.manifest import Row, read_rows
from nemoport.speech.overlap import Fingerprint, fingerprint, shared


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest. `sha256` is of the decoded samples (mono, f32, at the model's rate)."""

    id: str  # the manifest's audio_filepath; of a segment with its times
    path: Path
    text: str
    seconds: float
    sha256: str
    sample_rate_hz: int
    language: str = ""  # the spoken one: the manifest's `lang`
    prompt_language: str = ""  # the one that a model with a prompt is given: the manifest's `target_lang`, else `language`
    offset_s: float = 0.0  # where it begins in the file
    duration_s: float = 0.0  # what is read of the file; 0: to its end

    def samples(self) -> np.ndarray:
        """Reads f32 [n], mono, at `sample_rate_hz`. Raises AudioError."""
        return read_audio(self.path, self.sample_rate_hz, offset_s=self.offset_s, duration_s=self.duration_s)


@dataclass(frozen=True)
class Corpus:
    """The utterances of a manifest or a folder. path: of either."""

    path: Path
    utterances: tuple[Utterance, ...]

    @property
    def digest(self) -> str:
        """Digest of the audio, the texts and the languages, in order; file names do not matter."""
        return digest_json([(u.sha256, u.text, *filter(None, (u.language, u.prompt_language))) for u in self.utterances])

    @property
    def seconds(self) -> float:
        """Length of all audio."""
        return sum(u.seconds for u in self.utterances)


def read_corpus(place: Path, sample_rate_hz: int) -> Corpus:
    """Reads a manifest, one JSON object a line with audio_filepath (relative to the manifest) and, optionally, text, lang
    and target_lang; or a folder of audio with texts.

    `nemoport/speech/manifest.py` and `folder.py` have the conventions. Raises CorpusError naming all bad lines at once,
    AudioError for a file or segment that cannot be used.
    """
    names: Counter[str] = Counter()
    rows = folder_rows(place) if place.is_dir() else read_rows(place)
    return Corpus(place, tuple(_utterance(row, sample_rate_hz, names) for row in rows))


def prompts(corpus: Corpus, spec: ModelSpec) -> list[int | None]:
    """Returns the prompt slot of each utterance; None for each, for a model without a prompt.

    Raises CorpusError naming the utterances without a language, or with one that the model's dictionary does not have.
    """
    if spec.prompt is None:
        return [None] * len(corpus.utterances)
    slots, problems = [], []
    for utterance in corpus.utterances:
        try:
            slots.append(spec.prompt.slot(utterance.prompt_language))
        except UsageError as error:
            problems.append(f"{utterance.id}: {error.found}")
    if problems:
        raise CorpusError(
            f"{corpus.path} lacks languages that this model needs as its prompt.",
            expected="in each line `lang`, or `target_lang` for a prompt of another language: a name of the model's dictionary",
            found="; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else ""),
            todo="add them; languages.json of a build or package has the names",
        )
    return slots


def check_disjoint(calibration: Corpus, evaluation: Corpus) -> None:
    """Raises CorpusError if audio is in both, by its samples or its fingerprint (nemoport/speech/overlap.py): figures that are
    measured on calibration audio prove nothing."""
    ids = {u.sha256: u.id for u in calibration.utterances}
    both = [f"{ids[u.sha256]} = {u.id}" for u in evaluation.utterances if u.sha256 in ids]
    both += _shared(calibration, evaluation)
    if both:
        raise CorpusError(
            "Calibration and evaluation audio overlap.",
            expected=f"no recording of {evaluation.path}, and no part of one, in {calibration.path}",
            found=f"{len(both)} in both, such as {both[0]}",
            todo="take them out of one manifest",
        )


def print_repeats(corpus: Corpus, progress: Progress) -> None:
    """Prints what is in the corpus twice, with its times: recordings with the same samples, and those that share a part."""
    first: dict[str, str] = {}
    again = [(first.setdefault(u.sha256, u.id), u.id) for u in corpus.utterances]
    twice = [f"{one} = {other}" for one, other in again if one != other] + _shared(corpus, corpus)
    if twice:
        progress(f"{corpus.path} has audio twice, which counts twice: {len(twice)} pairs, such as {twice[0]}")


def _shared(left: Corpus, right: Corpus) -> list[str]:
    """Names what two corpora share, with its times; of one corpus with itself each pair once. Not what has the same samples."""
    found = []
    for part in shared(_fingerprints(left), _fingerprints(right)):
        one, other = left.utterances[part.left], right.utterances[part.right]
        if one.sha256 != other.sha256 and (left is not right or part.left < part.right):
            found.append(f"{_place(one, part.left_s)} = {_place(other, part.right_s)}")
    return found


@lru_cache(maxsize=4)
def _fingerprints(corpus: Corpus) -> list[Fingerprint]:
    return [fingerprint(u.samples(), u.sample_rate_hz) for u in corpus.utterances]


def _place(utterance: Utterance, times_s: tuple[float, float]) -> str:
    begin_s, end_s = (utterance.offset_s + time_s for time_s in times_s)
    return f"{utterance.path.name} {begin_s:.1f}-{end_s:.1f} s"


def check_each_once(evaluation: Corpus) -> None:
    """Raises CorpusError if a recording is listed twice with one prompt: it would count twice, and an interval be too narrow."""
    first: dict[tuple[str, str], str] = {}
    twice = []
    for utterance in evaluation.utterances:
        key = (utterance.sha256, utterance.prompt_language)
        if key in first:
            twice.append(f"{first[key]} = {utterance.id}")
        first.setdefault(key, utterance.id)
    if twice:
        raise CorpusError(
            f"{evaluation.path} lists a recording twice.",
            expected="each recording once, by its samples",
            found=f"{len(twice)} again, such as {twice[0]}",
            todo="take them out",
        )


def _utterance(row: Row, sample_rate_hz: int, names: Counter[str]) -> Utterance:
    """names: how often each name was given, so that rows of one file have names of their own."""
    samples = read_audio(row.path, sample_rate_hz, offset_s=row.offset_s, duration_s=row.duration_s)
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    seconds = len(samples) / sample_rate_hz
    name = f"{row.name}, {row.offset_s:.3f}-{row.offset_s + seconds:.3f} s" if row.offset_s else row.name
    names[name] += 1
    return Utterance(
        name if names[name] == 1 else f"{name} ({names[name]})",
        row.path,
        row.text,
        seconds,
        digest,
        sample_rate_hz,
        row.language,
        row.prompt_language or row.language,
        row.offset_s,
        row.duration_s,
    )
