"""Synthesises speech (espeak-ng, flite) as 16 kHz mono arrays, and writes the committed evaluation and calibration sets.

``python -m nemoport.reference.speech --out FOLDER`` writes ``eval.jsonl``, ``calibration.jsonl`` and their FLAC files
(NeMo manifests: audio_filepath relative to the manifest, text, duration in seconds; voice and set beside them), and
``eval-tdt.jsonl`` and ``calibration-tdt.jsonl``: some of the same English clips, with capitals and punctuation, and French;
``eval-multi.jsonl`` and ``calibration-multi.jsonl``: six languages as they are written, ``lang`` the locale.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np

from . import french, languages, prompt, text, voices, written

SAMPLE_RATE_HZ = 16000
RUN_8_S, RUN_10_S, RUN_13_S = (8, 0.3, "grammar"), (10, 0.3, "grammar"), (13, 0.6, "grammar")  # see held_out_set
FIELDS = ("audio_filepath", "text", "duration", "voice", "set", "lang", "target_lang")  # of a manifest, in this order


def synthesise(sentence: str, voice: voices.Voice) -> np.ndarray:
    """Synthesises one sentence: f32 [samples] at 16 kHz, peak 0.7, silence at both ends cut.

    Raises RuntimeError where the synthesiser is missing or refuses the voice.
    """
    import soxr

    command = voice.command(sentence)
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"{command[0]} was not found on PATH; install it (Debian: apt-get install {command[0]})")
    run = subprocess.run(command, capture_output=True)
    if run.returncode or len(run.stdout) < 1000:
        raise RuntimeError(f"{command[0]} gave no speech for voice {voice.name}: {run.stderr.decode(errors='replace')}")
    rate_hz = int.from_bytes(run.stdout[24:28], "little")
    # A piped WAV header carries no length, so the samples are read as what follows the 44 bytes.
    samples = np.frombuffer(run.stdout[44 : len(run.stdout) // 2 * 2], "<i2").astype(np.float32)
    samples = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
    samples = trim(samples / max(1.0, float(np.abs(samples).max())))
    return 0.7 * samples


def trim(samples: np.ndarray, threshold: float = 0.005) -> np.ndarray:
    """Cuts the quiet at both ends of samples f32 [n]."""
    loud = np.flatnonzero(np.abs(samples) > threshold)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def pad(samples: np.ndarray, rng: random.Random, longest_s: float) -> np.ndarray:
    """Adds silence at both ends, each up to ``longest_s``; a third of the clips end right after the last word."""
    after_s = 0.0 if rng.random() < 1 / 3 else rng.uniform(0.0, longest_s)
    return np.pad(samples, (int(rng.uniform(0.0, longest_s) * SAMPLE_RATE_HZ), int(after_s * SAMPLE_RATE_HZ)))


def joined(parts: list[np.ndarray], pauses_s: list[float]) -> np.ndarray:
    """Joins clips f32 [n] one after another, with ``pauses_s[i]`` of digital silence after part i."""
    pieces = [np.pad(part, (0, int(pause * SAMPLE_RATE_HZ))) for part, pause in zip(parts, pauses_s, strict=True)]
    return np.concatenate(pieces)


def with_noise_floor(samples: np.ndarray, seed: str, deviation: float = 3e-4) -> np.ndarray:
    """Adds faint white noise to samples f32 [n], as a microphone does; clips that need digital silence do without."""
    noise = np.random.default_rng(list(seed.encode())).standard_normal(len(samples))
    return (samples + deviation * noise).astype(np.float32)


def duration_s(row: dict) -> float:
    """Duration of a row's samples in seconds, as a manifest has it: rounded up, because NeMo cuts at the sample before it."""
    return rounded_up_s(len(row["samples"]))


def rounded_up_s(samples: int) -> float:
    """Seconds of so many samples, to four decimals, and not less than they are even where floats round the product down."""
    units = math.ceil(samples * 10_000 / SAMPLE_RATE_HZ)
    return units / 10_000 if int(units / 10_000 * SAMPLE_RATE_HZ) >= samples else (units + 1) / 10_000


def write_set(folder: Path, name: str, rows: list[dict]) -> None:
    """Writes ``<name>/*.flac`` and ``<name>.jsonl`` beside their place, then renames.

    Each row has samples f32, text, voice, set; or, for a clip of another set, audio_filepath and duration for samples.
    """
    import soundfile

    work = folder / f".{name}.partial"
    shutil.rmtree(work, ignore_errors=True)
    (work / name).mkdir(parents=True)
    with open(work / f"{name}.jsonl", "w") as manifest:
        for index, row in enumerate(rows):
            record = {key: value for key, value in row.items() if key in FIELDS}
            if "samples" in row:
                record |= dict(audio_filepath=f"{name}/{index:03d}.flac", duration=duration_s(row))
                soundfile.write(work / record["audio_filepath"], row["samples"], SAMPLE_RATE_HZ, subtype="PCM_16")
            manifest.write(json.dumps({key: record[key] for key in FIELDS if key in record}, ensure_ascii=False) + "\n")
    shutil.rmtree(folder / name, ignore_errors=True)
    os.replace(work / name, folder / name)
    os.replace(work / f"{name}.jsonl", folder / f"{name}.jsonl")
    work.rmdir()


def held_out_set(
    name: str, n_grammar: int, runs: list[tuple[float, float, str]], language: str = "en", unseen: list[str] | None = None
) -> list[dict]:
    """Makes the rows of one committed set: grammar sentences, unseen-word sentences, and clips of sentences in a row.

    ``runs`` are the clips in a row (one voice each, grammar sentences of their own): the seconds that each lasts a little
    over, the pause after its third sentence, and its set. ``name`` begins with the side of the split, eval or
    calibration; ``sentences`` of a row are what its text joins. With ``unseen``, sentences to read in the place of
    ``text``'s, the grammar is that of ``languages``.
    """
    rng = random.Random(f"speech {name}")
    side, source = name.partition("-")[0], french if language == "fr" else text
    if unseen is None:
        grammar, unseen, joiner = source.grammar_sentences(name, held_out=True), source.unseen_sentences(side), " "
    else:
        spoken = languages.BY_CODE[language]
        grammar, joiner = languages.grammar_sentences(spoken, name, held_out=True), spoken.joiner
    taken: set[str] = set()

    def fresh() -> str:
        """Draws a grammar sentence that is new to this set and in no set of the other side."""
        # The two sets draw from one pool, so the pool is halved by hash: no sentence can be in both.
        while (sentence := next(grammar)) in taken or (text.share_of(sentence, "set") < 0.5) != (side == "eval"):
            continue
        taken.add(sentence)
        return sentence

    jobs = [(fresh(), "grammar") for _ in range(n_grammar)]
    jobs += [(sentence, "unseen") for sentence in unseen]
    rows = []
    for index, (sentence, kind) in enumerate(jobs):
        voice = voices.draw(rng, side, language)
        samples = with_noise_floor(pad(synthesise(sentence, voice), rng, 0.5), f"{name} {index}")
        rows.append(dict(samples=samples, text=sentence, sentences=[sentence], voice=voice.name, set=kind))
    for length_s, pause_s, kind in runs:
        voice, parts, sentences, pauses = voices.draw(rng, side, language), [], [], []
        while sum(map(len, parts)) / SAMPLE_RATE_HZ + sum(pauses) < length_s:
            sentences.append(fresh())
            parts.append(synthesise(sentences[-1], voice))
            pauses.append(pause_s if len(parts) == 3 else rng.uniform(0.2, min(1.5, pause_s)))
        rows.append(
            dict(samples=joined(parts, pauses), text=joiner.join(sentences), sentences=sentences, voice=voice.name, set=kind)
        )
    return rows


def multilingual_set(side: str, n_grammar: int, n_unseen: int) -> list[dict]:
    """Makes the rows of the six languages, each with so many clips of a sentence and one of several, 8 s long.

    A third of the rows of each language has the prompt ``auto``.
    """
    rows = []
    for language in languages.LANGUAGES:
        new = held_out_set(
            f"{side}-multi-{language.code}", n_grammar, [RUN_8_S], language.code, language.unseen_sentences(side)[:n_unseen]
        )
        prompts = [{"target_lang": prompt.AUTO} if index % 3 == 2 else {} for index in range(len(new))]
        rows += [
            dict(row, set=f"{row['set']}-{language.code}", lang=language.locale, **target)
            for row, target in zip(new, prompts, strict=True)
        ]
    return rows


def written_set(side: str, english: list[dict], n_grammar: int, n_unseen: int) -> list[dict]:
    """Makes rows with capitals and punctuation: ``english`` ones of ``side``, by reference, and as many new French ones.

    Of the English single sentences the first ``n_grammar`` and ``n_unseen`` are taken, and every clip of several.
    """
    rows, left = [], dict(grammar=n_grammar, unseen=n_unseen)
    for index, row in enumerate(english):
        if len(row["sentences"]) == 1:
            left[row["set"]] -= 1
        if len(row["sentences"]) > 1 or left[row["set"]] >= 0:
            rows.append(
                dict(
                    audio_filepath=f"{side}/{index:03d}.flac",
                    duration=duration_s(row),
                    voice=row["voice"],
                    lang="en",
                    set=f"{row['set']}-en",
                    text=" ".join(map(written.english, row["sentences"])),
                )
            )
    new = held_out_set(f"{side}-tdt", n_grammar, [RUN_10_S, RUN_13_S], "fr")
    return rows + [dict(row, set=f"{row['set']}-fr", lang="fr") for row in new]


def written_further(side: str, rows: list[dict], n: int) -> list[dict]:
    """Makes ``n`` more rows of a grammar sentence in English and in French, with capitals and punctuation.

    None has the text of one of ``rows``.
    """
    taken, further = {row["text"] for row in rows}, []
    for code in ("en", "fr"):
        new = [row for row in held_out_set(f"{side}-further-{code}", n + len(rows), [], code) if row["set"] == "grammar"]
        if code == "en":
            new = [dict(row, text=written.english(row["text"])) for row in new]
        new = [dict(row, set=f"grammar-{code}", lang=code) for row in new if row["text"] not in taken][:n]
        further += new
    return further


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the evaluation and the calibration speech.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "audio")
    parser.add_argument("--multilingual", action="store_true", help="only the sets of six languages")
    args = parser.parse_args()
    folder = args.out
    folder.mkdir(parents=True, exist_ok=True)
    write_set(folder, "eval-multi", multilingual_set("eval", n_grammar=9, n_unseen=7))
    write_set(folder, "calibration-multi", multilingual_set("calibration", n_grammar=10, n_unseen=8))
    if args.multilingual:
        return
    evaluation = held_out_set("eval", 30, [RUN_10_S, RUN_13_S, (60, 1.5, "long")])
    calibration = held_out_set("calibration", 30, [RUN_10_S, RUN_13_S, (50, 12.0, "long")])
    write_set(folder, "eval", evaluation)
    write_set(folder, "calibration", calibration)
    short = [row for row in evaluation if row["set"] != "long"]  # what is long for this kind is made from the short ones
    rows = written_set("eval", short, n_grammar=18, n_unseen=20)
    write_set(folder, "eval-tdt", rows + written_further("eval", rows, 60))
    write_set(folder, "calibration-tdt", written_set("calibration", calibration, n_grammar=14, n_unseen=14))


if __name__ == "__main__":
    main()
