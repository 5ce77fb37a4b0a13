"""Inputs in which words are lost or invented, made of speech: isolated words, speech that begins at once, silence around it, and
sounds that are no speech."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import Corpus, Utterance, prompts, read_corpus

WORDS, CLIPPED, ZEROS, FAINT = "isolated words", "clipped speech", "zeros around", "faint noise around"
SILENCE, TONES, NOISE = "silence", "hum and tones", "noise"
SPOKEN, SOUNDS = (WORDS, CLIPPED, ZEROS, FAINT), (SILENCE, TONES, NOISE)
AROUND_S = (0.0, 0.2, 1.0, 5.0, 30.0)
MARGIN_S = 0.1  # kept on either side of a word: its times are those of encoder frames
ONSET = 0.01  # of the peak: what is below it before speech is cut
FAINT_RMS = 1e-4
SOUND_S = 10.0


@dataclass(frozen=True)
class Clip:
    """samples: f32 [n]; source: the utterance that it is made of, None for a sound."""

    kind: str
    samples: np.ndarray
    source: Utterance | None = None


def noise(n: int, rms: float, seed: int, *, pink: bool = False) -> np.ndarray:
    """White or pink noise, f64 [n]."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    if pink:
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    samples = np.fft.irfft(spectrum, n)
    return samples * rms / np.sqrt(np.mean(samples**2))


def sounds(rate_hz: int) -> Iterator[Clip]:
    n = round(SOUND_S * rate_hz)
    t, lsb = np.arange(n) / rate_hz, 2.0**-15
    for seconds in (0.05, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, SOUND_S, 30.0):
        yield Clip(SILENCE, np.zeros(round(seconds * rate_hz)))
    yield Clip(SILENCE, np.random.default_rng(0).integers(-1, 2, n) * lsb)
    yield Clip(SILENCE, np.full(n, lsb))
    yield Clip(SILENCE, np.where(np.arange(n) == n // 2, lsb, 0.0))
    for level in (0.001, 0.01, 0.1, 0.5):
        for hz in (50, 60, 440, 1000, 3000, 7000):
            yield Clip(TONES, level * np.sin(2 * np.pi * hz * t))
        yield Clip(TONES, level * sum(np.sin(2 * np.pi * 50 * k * t) / k for k in range(1, 20)) / 2)  # a mains hum's harmonics
    for rms in (1e-5, 1e-4, 1e-3, 1e-2, 0.1):
        yield Clip(NOISE, noise(n, rms, 1))
        yield Clip(NOISE, noise(n, rms, 2, pink=True))


def words(recognizer: Recognizer, corpus: Corpus, count: int) -> list[Clip]:
    """Cuts words out of the corpus, by the times that a recognizer equal to NeMo gives them."""
    rate_hz, clips = recognizer.sample_rate_hz, []
    for utterance, slot in zip(corpus.utterances, prompts(corpus, recognizer.session.spec), strict=True):
        recognizer.prompt, samples = slot, utterance.samples()
        for word in next(recognizer.transcribe([("", samples)])).words:
            start, end = (round(max(0.0, s) * rate_hz) for s in (word.start - MARGIN_S, word.end + MARGIN_S))
            clips.append(Clip(WORDS, samples[start:end], utterance))
    return random.Random(0).sample(clips, min(count, len(clips)))


def spoken(corpus: Corpus, rate_hz: int, clipped: int, padded: int) -> Iterator[Clip]:
    """clipped, padded: how many utterances of the corpus are taken, evenly spaced."""
    whole = corpus.utterances
    for utterance in whole[:: max(1, len(whole) // clipped)][:clipped]:
        samples = utterance.samples()
        onset = int(np.argmax(np.abs(samples) > ONSET * np.abs(samples).max()))
        for later_s in (0.0, 0.03, 0.1):  # into the first word
            yield Clip(CLIPPED, samples[onset + round(later_s * rate_hz) :], utterance)
    short = sorted(whole, key=lambda u: u.seconds)[: max(padded, len(whole) // 2)]
    for utterance in short[:: max(1, len(short) // padded)][:padded]:
        for seconds in AROUND_S:
            silence, samples = np.zeros(round(seconds * rate_hz)), utterance.samples()
            yield Clip(ZEROS, np.concatenate([silence, samples, silence]), utterance)
            faint = noise(2 * len(silence) + len(samples), FAINT_RMS, 3)
            faint[len(silence) : len(silence) + len(samples)] += samples
            yield Clip(FAINT, faint, utterance)


def made(folder: Path, recognizer: Recognizer, speech: Path, counts: tuple[int, int, int]) -> tuple[Corpus, list[str]]:
    """Returns the clips as a corpus, and the kind of each. speech: a manifest; counts: of words, of clipped and of padded
    utterances. Written into the folder once."""
    rate_hz, manifest = recognizer.sample_rate_hz, folder / f"{speech.stem}-{'-'.join(map(str, counts))}.jsonl"
    if not manifest.is_file():
        corpus, rows = read_corpus(speech, rate_hz), []
        clips = [*words(recognizer, corpus, counts[0]), *spoken(corpus, rate_hz, *counts[1:]), *sounds(rate_hz)]
        (folder / manifest.stem).mkdir(parents=True, exist_ok=True)
        for i, clip in enumerate(clips):
            path = folder / manifest.stem / f"{i:04}.wav"
            soundfile.write(path, clip.samples.astype(np.float32), rate_hz, subtype="FLOAT")
            row = {"audio_filepath": f"{manifest.stem}/{path.name}", "text": "", "kind": clip.kind, "lang": "en-US"}
            row |= {"target_lang": "auto"}
            if clip.source:
                row |= {"lang": clip.source.language, "target_lang": clip.source.prompt_language}
            rows.append(json.dumps({key: value for key, value in row.items() if value}) + "\n")
        manifest.write_text("".join(rows))
    kinds = [json.loads(line)["kind"] for line in manifest.read_text().splitlines()]
    return read_corpus(manifest, rate_hz), kinds
