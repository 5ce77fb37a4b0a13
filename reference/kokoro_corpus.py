"""Evaluation speech in Kokoro's voices: sentences kept from training, as a NeMo manifest of FLAC files.

A run that is started again goes on where it stopped.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nemoport.errors import CorpusError
from nemoport.files import exclusive_lock

from . import kokoro, languages, ordinary, speech, text

PADDED_S = 0.5
MOST_WORDS = 9  # more short sentences resolve more than fewer long ones, for the same work
MANIFEST = "corpus.jsonl"


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


def jobs(language: str, seed: str) -> Iterator[Job]:
    """Draws the clips of a corpus, without end: the first n are the same for every n. Raises UsageError as ``kokoro.draw``."""
    rng = random.Random(f"kokoro voices {language} {seed}")
    for index, (sentence, kind) in enumerate(sentences(language, seed)):
        yield Job(index, sentence, kind, kokoro.draw(rng, "eval", language), f"{seed} {language} {index}")


def write(folder: Path, clips: int, language: str, seed: str, packages: Path) -> Path:
    """Writes clips until the corpus has so many, and returns its manifest. packages: as ``kokoro.Speaker`` takes them.

    Each line of the manifest is written behind its clip, so that a run that is stopped leaves a smaller corpus. Another run that
    needs more clips waits for it.
    Raises CorpusError where the folder holds a corpus of other sentences, UsageError and ArtifactError as ``kokoro``.
    """
    manifest = folder / MANIFEST
    if len(_kept(manifest, language, seed)) < clips:
        (folder / "flac").mkdir(parents=True, exist_ok=True)
        with exclusive_lock(manifest):
            kept = _kept(manifest, language, seed)
            if len(kept) < clips:
                _extend(manifest, kept, clips, language, seed, kokoro.Speaker(packages))
    return manifest


def _kept(manifest: Path, language: str, seed: str) -> list[str]:
    """Lines of the manifest, without one that was cut off. Raises CorpusError if they are not of this corpus."""
    if not manifest.is_file():
        return []
    lines = [line for line in manifest.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    for line, job in zip(lines, jobs(language, seed), strict=False):
        row = json.loads(line)
        if (row["text"], row["voice"]) != (job.sentence, job.voice.name):
            raise CorpusError(
                f"{manifest} is another corpus.",
                expected=f"{job.sentence!r} in line {job.index + 1}",
                found=repr(row["text"]),
                todo="name another folder",
            )
    return lines


def _extend(manifest: Path, kept: list[str], clips: int, language: str, seed: str, speaker: kokoro.Speaker) -> None:
    """Writes the manifest's clips from behind those that are kept."""
    manifest.write_text("".join(kept), encoding="utf-8")
    with open(manifest, "a", encoding="utf-8") as lines:
        for job in islice(jobs(language, seed), len(kept), clips):
            lines.write(json.dumps(_made(manifest.parent, job, language, speaker), ensure_ascii=False) + "\n")
            lines.flush()


def _made(folder: Path, job: Job, language: str, speaker: kokoro.Speaker) -> dict:
    """Writes the clip of a job, with silence around it and a faint noise, and returns its row."""
    import soundfile

    padded = speech.pad(speaker.speak(job.sentence, job.voice), random.Random(job.seed), PADDED_S)
    samples = speech.with_noise_floor(padded, job.seed)
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
