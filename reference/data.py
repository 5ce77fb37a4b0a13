"""Training clips in memory, their augmentation, and batches of about equal length in seconds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import written

SAMPLE_RATE_HZ = 16000
SAMPLES_PER_ENC_FRAME = 1280


@dataclass
class Clip:
    """A training clip: samples i16 [n] at 16 kHz and the tokens of its text.

    ``recorded`` is true of a recording of people, false of synthesis; ``language`` is a locale such as de-DE, or "" where
    the model takes no prompt.
    """

    samples: np.ndarray
    tokens: list[int]
    recorded: bool
    language: str = ""


def load(
    rows: list[dict],
    tokens_of: Callable[[str], list[int]],
    recorded: bool,
    shortest_s: float = 0.4,
    longest_s: float = 17.0,
    tagged: bool = False,
) -> list[Clip]:
    """Reads the clips of manifest rows (absolute audio_filepath); those outside the two lengths are left out.

    ``tagged`` is for a prompted model: the text ends in the tag of the row's ``lang``.
    """
    import soundfile

    kept = [row for row in rows if shortest_s <= row["duration"] <= longest_s]
    return [
        Clip(
            soundfile.read(row["audio_filepath"], dtype="int16")[0],
            tokens_of(f"{row['text']} <{row['lang']}>" if tagged else row["text"]),
            recorded,
            row["lang"] if tagged else "",
        )
        for row in kept
    ]


def synthetic_rows(manifest: Path, as_written: bool) -> list[dict]:
    """Reads the rows of a manifest of ``corpus``, audio_filepath made absolute.

    ``as_written`` gives the English ones, which are lower-case, their capitals and punctuation.
    """
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows:
        row["audio_filepath"] = str(manifest.parent / row["audio_filepath"])
        if as_written and row.get("lang", "en") == "en":
            row["text"] = written.english(row["text"])
    return rows


def changed_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Plays samples f32 [n] ``factor`` times as fast (pitch too), by linear interpolation."""
    return np.interp(np.arange(0, len(samples) - 1, factor), np.arange(len(samples)), samples).astype(np.float32)


def silence(rng: random.Random, longest_s: float) -> np.ndarray:
    """Digital silence f32 [n] of a random length up to ``longest_s``."""
    return np.zeros(int(rng.uniform(0, longest_s) * SAMPLE_RATE_HZ), np.float32)


def masked(samples: np.ndarray, rng: random.Random) -> np.ndarray:
    """Blanks a random band of up to 1200 Hz and two stretches of up to 0.12 s of samples f32 [n] (SpecAugment, on samples)."""
    spectrum = np.fft.rfft(samples)
    hz_per_bin = SAMPLE_RATE_HZ / len(samples)
    low, width = rng.uniform(0, 6000) / hz_per_bin, rng.uniform(0, 1200) / hz_per_bin
    spectrum[int(low) : int(low + width)] = 0
    samples = np.fft.irfft(spectrum, len(samples)).astype(np.float32)
    for _ in range(2):
        start = rng.randrange(len(samples))
        samples[start : start + int(rng.uniform(0, 0.12) * SAMPLE_RATE_HZ)] = 0
    return samples


def augmented(clip: Clip, rng: random.Random, noise: np.random.Generator) -> np.ndarray:
    """Augments one clip: speed, then silence around it, then a tilt of the spectrum, gain, and noise at 15 to 45 dB or none.

    Returns samples f32 [n]. A third of the clips end right after the last word and most have no noise at all, so that
    training covers both an abrupt end and digital silence. All of it is mild: in an hour on two cores the model never
    fits the speech as it is, and what makes the task harder only slows training down. Recordings, which are few and come
    often, change speed more often and lose parts (``masked``), so that the model does not memorise them.
    """
    samples = clip.samples.astype(np.float32) / 32768
    if rng.random() < (0.6 if clip.recorded else 0.2):
        samples = changed_speed(samples, rng.uniform(0.9, 1.1))
    if clip.recorded and rng.random() < 0.6:
        samples = masked(samples, rng)
    after = silence(rng, 0.0 if rng.random() < 1 / 3 else 0.6)
    samples = np.concatenate([silence(rng, 0.5), samples, after])
    if rng.random() < 0.3:
        tilt = rng.uniform(-0.5, 0.5)
        samples[1:] -= tilt * samples[:-1].copy()
    level = rng.uniform(0.15, 1.0) / max(1e-3, float(np.abs(samples).max()))
    samples *= level if rng.random() < 0.8 else 0.7
    if rng.random() < 0.3:
        power = float(np.sqrt(np.mean(samples**2)))
        white = noise.standard_normal(len(samples), dtype=np.float32)
        if rng.random() < 0.5:  # rooms and traffic are louder below than above
            white = np.convolve(white, np.exp(-np.arange(24) / rng.uniform(1, 8)).astype(np.float32), "same")
            white /= max(1e-6, float(white.std()))
        samples = samples + white * (power * 10 ** (-rng.uniform(15, 45) / 20))
    return samples


def chained(clips: list[Clip], rng: random.Random, noise: np.random.Generator, longest_pause_s: float) -> tuple:
    """Joins several augmented clips to one utterance with digital silence between: (samples f32 [n], tokens)."""
    pieces, tokens = [], []
    for clip in clips:
        pieces += [augmented(clip, rng, noise), silence(rng, longest_pause_s)]
        tokens += clip.tokens
    return np.concatenate(pieces), tokens


def long_chain(clips: list[Clip], rng: random.Random, noise: np.random.Generator, length_s: float) -> tuple:
    """Joins random clips to one utterance of at least ``length_s``: (samples f32 [n], tokens, cuts).

    A cut (sample, number of labels so far) lies in the middle of the silence between two clips, for ``step.stretches``.
    One level and one noise floor for the whole, as in a recording; the pauses are short or long in the whole of it.
    """
    pieces, tokens, cuts, n_samples = [], [], [], 0
    longest_pause_s = rng.choice((0.2, 0.8, 2.5))
    while n_samples < length_s * SAMPLE_RATE_HZ:
        clip = rng.choice(clips)
        pause = np.zeros(int(rng.uniform(0.16, 0.16 + longest_pause_s) * SAMPLE_RATE_HZ), np.float32)
        if n_samples:
            cuts.append((n_samples + len(pause) // 2, len(tokens)))
        pieces += [pause, clip.samples.astype(np.float32) / 32768 * rng.uniform(0.5, 1.0)]
        n_samples += sum(map(len, pieces[-2:]))
        tokens += clip.tokens
    samples = np.concatenate(pieces) * np.float32(rng.uniform(0.15, 1.0))
    if rng.random() < 0.5:
        floor = float(np.sqrt(np.mean(samples**2))) * 10 ** (-rng.uniform(20, 50) / 20)
        samples += floor * noise.standard_normal(len(samples), dtype=np.float32)
    return samples, tokens, cuts


def without_speech(rng: random.Random, noise: np.random.Generator) -> tuple:
    """Example without speech: digital silence or noise f32 [n] of 0.3 to 4 s, and no tokens."""
    samples = noise.standard_normal(int(rng.uniform(0.3, 4.0) * SAMPLE_RATE_HZ), dtype=np.float32)
    return samples * rng.choice((0.0, 1e-4, 1e-3, 1e-2, 0.05)), []


def batches(
    clips: list[Clip],
    seconds: float,
    chain_share: float,
    seed: int,
    long_share: float = 0.0,
    longest_s: float = 120.0,
    silent_share: float = 0.0,
    auto_share: float | None = None,
) -> Iterator[list[tuple]]:
    """Batches of one pass over the clips: lists of (samples f32 [n], tokens[, cuts[, prompt]]), about ``seconds`` of audio each.

    Clips of like length share a batch. ``chain_share`` of the batches hold chains of clips, 10 to 20 s long,
    ``long_share`` hold chains of 25 s to ``longest_s``; ``silent_share`` have one more example, ``without_speech``.
    With ``auto_share`` every example has the name of a prompt: ``auto`` for that share, else its language; only a chain
    with the prompt ``auto`` mixes languages.
    """
    rng, noise = random.Random(f"batches {seed}"), np.random.default_rng(seed)
    order = sorted(clips, key=lambda clip: len(clip.samples) * rng.uniform(0.85, 1.15))
    groups, start = [], 0
    while start < len(order):
        stop, longest = start, 0
        while stop < len(order) and stop - start < 48:
            longest = max(longest, len(order[stop].samples) + SAMPLE_RATE_HZ // 2)
            if stop > start and longest * (stop - start + 1) > seconds * SAMPLE_RATE_HZ:
                break
            stop += 1
        groups.append(order[start:stop])
        start = stop
    rng.shuffle(groups)
    by_language: dict[str, list[Clip]] = {}
    for clip in clips if auto_share is not None else ():
        by_language.setdefault(clip.language, []).append(clip)

    def prompted(example: tuple, language: str) -> tuple:
        if auto_share is None:
            return example
        return (*example, [], "auto" if not language or rng.random() < auto_share else language)

    def chain() -> tuple:
        language = "" if auto_share is None or rng.random() < auto_share else rng.choice(sorted(by_language))
        links = rng.choices(by_language[language] if language else clips, k=rng.randint(3, 5))
        example = chained(links, rng, noise, rng.choice((0.3, 1.0, 4.0)))
        return example if auto_share is None else (*example, [], language or "auto")

    for group in groups:
        kind = rng.random()
        if kind > 1 - long_share:
            length_s = min(longest_s, 25 * (longest_s / 25) ** rng.random())  # as many doublings of the length each
            yield [long_chain(clips, rng, noise, length_s) for _ in range(max(1, int(seconds / length_s)))]
        elif kind < chain_share:
            yield [chain() for _ in range(max(1, int(seconds / 15)))]
        else:
            silent = [without_speech(rng, noise)] if silent_share and rng.random() < silent_share else []
            yield [prompted((augmented(clip, rng, noise), clip.tokens), clip.language) for clip in group] + [
                prompted(example, rng.choice(sorted(by_language)) if by_language else "") for example in silent
            ]


def collate(batch: list[tuple]) -> tuple:
    """Collates the examples of ``batches`` to tensors, padded with zeros.

    Returns audio f32 [B, n], n_samples i64 [B], targets i64 [B, U], n_labels i64 [B], the cuts of each example and the
    names of the prompts (None without prompts).
    """
    import torch

    clips, labels = (
        [torch.from_numpy(example[0]) for example in batch],
        [torch.tensor(example[1], dtype=torch.long) for example in batch],
    )
    pad = torch.nn.utils.rnn.pad_sequence
    return (
        pad(clips, batch_first=True),
        torch.tensor([len(clip) for clip in clips]),
        pad(labels, batch_first=True),
        torch.tensor([len(tokens) for tokens in labels]),
        [example[2] if len(example) > 2 else [] for example in batch],
        [example[3] for example in batch] if len(batch[0]) > 3 else None,
    )
