"""Evaluation speech as one recording of many minutes, with pauses and one long silence, like the streams of real use.

A stream's caches have no end, so an artifact may transcribe single utterances well and lose words on long audio: INT8 builds
of these models did so unnoticed (40 % WER in place of 10). The recording is built from the evaluation corpus, so that it has
transcripts and NeMo can transcribe the same.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.files import digest_json, folder_once, read_json
from nemoport.speech.corpus import Corpus, read_corpus

PAUSES_S = (0.4, 1.0, 2.5)
SILENCE_S = 60.0  # digital zero, in the middle of a recording that is long enough for it
EARLY_S = 0.2  # no token is emitted before its sound, but clips begin with silence


@dataclass(frozen=True)
class Segment:
    """A part of the recording: an utterance with its text and language, or the long silence, whose text is ""."""

    start_s: float
    text: str
    language: str = ""


@dataclass(frozen=True)
class LongForm:
    """A long recording. corpus: its single utterance is the recording; segments: in order, each lasting until the next begins.

    Where several recordings are joined (`LongForm.joined`), each is an utterance, and the next begins with a full minute.
    """

    corpus: Corpus
    segments: tuple[Segment, ...]

    def split(self, tokens: Sequence[int], token_frames: Sequence[int], frame_seconds: float) -> list[tuple[int, ...]]:
        """Splits tokens into those of each segment, by the encoder frames on which they were emitted. frame_seconds: seconds of
        audio per encoder frame."""
        starts = np.array([s.start_s - EARLY_S for s in self.segments])
        where = np.searchsorted(starts, np.array(token_frames) * frame_seconds, "right") - 1
        return [tuple(t for t, at in zip(tokens, where, strict=True) if at == i) for i in range(len(starts))]

    @staticmethod
    def joined(forms: Sequence[LongForm]) -> LongForm:
        """Returns several recordings as one, whose segments follow one another."""
        segments, shift_s = [], 0.0
        for form in forms:
            segments += [replace(segment, start_s=segment.start_s + shift_s) for segment in form.segments]
            shift_s += 60.0 * math.ceil(form.corpus.seconds / 60)
        recordings = tuple(utterance for form in forms for utterance in form.corpus.utterances)
        return LongForm(replace(forms[0].corpus, utterances=recordings), tuple(segments))


def make_longform(corpus: Corpus, minutes: float, build: Path, prompt_language: str = "", number: int = 0) -> LongForm:
    """Makes the recording of `minutes` (at most one utterance more) in build/longform/<digest>/, once, and returns it.

    prompt_language: the recording's language prompt, for a model that takes one. number: counts recordings, each of which begins
    with the utterance behind the last one of the recording before it. Raises OutputError, ArtifactError.
    """
    digest = digest_json([corpus.digest, minutes, PAUSES_S, SILENCE_S, *filter(None, [prompt_language, number])])
    folder = build / "longform" / digest[:16]
    folder_once(folder, lambda made: _write(made, corpus, minutes, prompt_language, number))
    raw = read_json(folder / "segments.json", f"remove {folder} and validate again")
    try:
        segments = tuple(Segment(**row) for row in raw["segments"])
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{folder / 'segments.json'} cannot be read.",
            expected="the segments of a long recording",
            found=f"{type(error).__name__}: {error}",
            todo=f"remove {folder} and validate again",
        ) from error
    return LongForm(read_corpus(folder / "long.jsonl", corpus.utterances[0].sample_rate_hz), segments)


def _recordings(corpus: Corpus, minutes: float) -> Iterator[tuple[np.ndarray, list[Segment]]]:
    """Yields recordings without end: samples, f32 [n], and segments. Each takes the next utterances until it has `minutes`; the
    utterances come in a new order each round."""
    rate_hz = corpus.utterances[0].sample_rate_hz
    rng = random.Random(0)
    rounds = (rng.sample(corpus.utterances, len(corpus.utterances)) for _ in itertools.count())
    utterances = itertools.chain.from_iterable(rounds)
    while True:
        pieces, segments, seconds, silent = [], [], 0.0, minutes * 60 < 3 * SILENCE_S
        while seconds < minutes * 60:
            utterance = next(utterances)
            pause = rng.choice(PAUSES_S)
            segments.append(Segment(seconds, utterance.text, utterance.language))
            pieces += [utterance.samples(), np.zeros(int(pause * rate_hz), np.float32)]
            if not silent and seconds > minutes * 30:
                silent = True
                # It begins a second late, so that tokens that are emitted late still belong to the utterance.
                segments.append(Segment(sum(map(len, pieces)) / rate_hz + 1.0, ""))
                pieces.append(np.zeros(int(SILENCE_S * rate_hz), np.float32))
            seconds = sum(map(len, pieces)) / rate_hz
        yield np.concatenate(pieces), segments


def _write(folder: Path, corpus: Corpus, minutes: float, prompt_language: str, number: int) -> None:
    import soundfile

    samples, segments = next(itertools.islice(_recordings(corpus, minutes), number, None))
    soundfile.write(folder / "long.flac", samples, corpus.utterances[0].sample_rate_hz, subtype="PCM_16")
    text = " ".join(s.text for s in segments if s.text)
    row = {"audio_filepath": "long.flac", "text": text, "target_lang": prompt_language}
    (folder / "long.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "segments.json").write_text(json.dumps({"segments": [vars(s) for s in segments]}, indent=1))
