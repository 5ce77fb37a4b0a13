"""Speech in Kokoro's voices as a NeMo manifest of FLAC files: sentences kept from training, or text of ``corpus`` for training.

The two share no voice and no sentence. A run that is started again goes on where it stopped.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

from nemoport.errors import CorpusError, UsageError
from nemoport.files import exclusive_lock

from . import kokoro, languages, ordinary, speech, text

PADDED_S = 0.5
MOST_WORDS = 9  # more short sentences resolve more than fewer long ones, for the same work
MANIFEST, TRAIN = "corpus.jsonl", "train"
KEPT = 4000  # first sentences of the evaluation of seed "0", which training leaves out
Source = Callable[[], Callable[[], str]]  # begins training text anew: what draws one sentence after another


@dataclass(frozen=True)
class Job:
    """One clip to be made. seed: of what is drawn beside the sentence and the voice."""

    index: int
    sentence: str
    kind: str
    voice: kokoro.Voice
    seed: str


def sentences(language: str, seed: str) -> Iterator[tuple[str, str]]:
    """Draws (sentence, kind) without end, none twice, long or committed: by fours of the held-out grammar and of fresh prose.

    English is normalised, other languages are written. The other half of the held-out grammar is calibration's, see ``speech``.
    """
    committed = Path(__file__).resolve().parent / "audio"
    names = ("eval.jsonl", "calibration.jsonl") if language == "en" else ("eval-multi.jsonl", "calibration-multi.jsonl")
    taken = {json.loads(line)["text"] for name in names for line in (committed / name).read_text().splitlines()}
    spoken, rng, number = languages.BY_CODE[language], random.Random(f"kokoro {language} {seed}"), 0
    if language == "en":
        grammar = text.grammar_sentences(f"kokoro {seed}", held_out=True)
    else:
        grammar = languages.grammar_sentences(spoken, f"kokoro {seed}", held_out=True)
    while True:
        kind = ("grammar", "prose")[number // 4 % 2]
        if kind == "grammar":
            sentence = next(grammar)
        else:
            sentence = ordinary.sentence(rng) if language == "en" else spoken.draw("prose", rng)
        other_half = kind == "grammar" and text.share_of(sentence, "set") >= 0.5
        if other_half or sentence in taken or len(sentence.split()) > MOST_WORDS:
            continue
        taken.add(sentence)
        number += 1
        yield sentence, kind


@lru_cache
def kept_from_training(language: str) -> frozenset[str]:
    """The sentences of the evaluation: grammar is held out by hash already, prose can be drawn for both."""
    return frozenset(sentence for sentence, _ in islice(sentences(language, "0"), KEPT))


def training_sentences(language: str, draw: Callable[[], str]) -> Iterator[tuple[str, str]]:
    """Draws (sentence, TRAIN) without end, none twice and none of the evaluation. draw: one sentence of training text, see
    ``corpus``.

    Raises UsageError where ``draw`` gives nothing new a thousand times in a row.
    """
    taken = set(kept_from_training(language))
    while True:
        fresh = next((sentence for sentence in (draw() for _ in range(1000)) if sentence not in taken), None)
        if fresh is None:
            raise UsageError(
                "The training text has no further sentences.",
                expected="text of more sentences than clips",
                found=f"{len(taken)} sentences, then none in 1000 draws",
                todo="ask for fewer --clips, or give --words, --transcripts or --ordinary-share",
            )
        taken.add(fresh)
        yield fresh, TRAIN


def jobs(language: str, seed: str, source: Source | None = None) -> Iterator[Job]:
    """Draws the clips of a corpus, without end: the first n are the same for every n. source: of a corpus for training.

    Raises UsageError as ``kokoro.draw`` and ``training_sentences``.
    """
    side, drawn = ("train", training_sentences(language, source())) if source else ("eval", sentences(language, seed))
    rng = random.Random(f"kokoro {'training ' if source else ''}voices {language} {seed}")
    for index, (sentence, kind) in enumerate(drawn):
        yield Job(index, sentence, kind, kokoro.draw(rng, side, language), f"{seed} {language} {index}")


def write(folder: Path, clips: int, language: str, seed: str, packages: Path, source: Source | None = None) -> Path:
    """Writes clips until the corpus has so many, and returns its manifest. packages: as ``kokoro.Speaker`` takes them; source: as
    ``jobs``.

    Each line of the manifest is written behind its clip, so that a run that is stopped leaves a smaller corpus. Another run that
    needs more clips waits for it.
    Raises CorpusError where the folder holds a corpus of other sentences, UsageError and ArtifactError as ``kokoro``.
    """
    manifest, drawn = folder / MANIFEST, partial(jobs, language, seed, source)
    if len(_kept(manifest, drawn())) < clips:
        (folder / "flac").mkdir(parents=True, exist_ok=True)
        with exclusive_lock(manifest):
            kept = _kept(manifest, drawn())
            if len(kept) < clips:
                _extend(manifest, kept, islice(drawn(), len(kept), clips), language, kokoro.Speaker(packages))
    return manifest


def _kept(manifest: Path, drawn: Iterator[Job]) -> list[str]:
    """Lines of the manifest, without one that was cut off. Raises CorpusError if they are not of this corpus."""
    if not manifest.is_file():
        return []
    lines = [line for line in manifest.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    for line, job in zip(lines, drawn, strict=False):
        row = json.loads(line)
        if (row["text"], row["voice"]) != (job.sentence, job.voice.name):
            raise CorpusError(
                f"{manifest} is another corpus.",
                expected=f"{job.sentence!r} in line {job.index + 1}",
                found=repr(row["text"]),
                todo="name another folder",
            )
    return lines


def _extend(manifest: Path, kept: list[str], missing: Iterator[Job], language: str, speaker: kokoro.Speaker) -> None:
    """Writes the clips that are missing behind those that are kept."""
    manifest.write_text("".join(kept), encoding="utf-8")
    with open(manifest, "a", encoding="utf-8") as lines:
        for job in missing:
            lines.write(json.dumps(_made(manifest.parent, job, language, speaker), ensure_ascii=False) + "\n")
            lines.flush()


def _made(folder: Path, job: Job, language: str, speaker: kokoro.Speaker) -> dict:
    """Writes the clip of a job and returns its row. One for evaluation has silence around it and a faint noise.

    Training adds its own (``data.augmented``).
    """
    import soundfile

    samples = speaker.speak(job.sentence, job.voice)
    if job.kind != TRAIN:
        samples = speech.with_noise_floor(speech.pad(samples, random.Random(job.seed), PADDED_S), job.seed)
    path = f"flac/{job.index:06d}.flac"
    soundfile.write(folder / path, samples, speech.SAMPLE_RATE_HZ, subtype="PCM_16")
    return dict(
        audio_filepath=path,
        text=job.sentence,
        duration=speech.rounded_up_s(len(samples)),
        voice=job.voice.name,
        set=job.kind,
        lang=language if language == "en" else languages.BY_CODE[language].locale,
    )
