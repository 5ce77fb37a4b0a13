"""Evaluation speech as it reaches recognisers: over a telephone, in noise, from far away.

Rounding errors that clean speech hides can show where activations differ from those of the calibration audio. NeMo transcribes
the same recordings, so a comparison measures the artifact and not how hard the audio is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nemoport.files import digest_json, folder_once
from nemoport.speech.corpus import Corpus, read_corpus

MOST_UTTERANCES = 16  # of the corpus, evenly spaced, under each condition
TELEPHONE_HZ = (300.0, 3400.0)
MU = 255.0  # ITU-T G.711

Condition = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]  # samples, rate in Hz, randomness -> samples


def telephone(samples: np.ndarray, rate_hz: int, random: np.random.Generator | None = None) -> np.ndarray:
    """Removes all frequencies outside 300 to 3400 Hz and rounds samples, f32 [n], to 8 bits of mu-law. Nothing is random."""
    spectrum = np.fft.rfft(samples)
    hz = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    spectrum[(hz < TELEPHONE_HZ[0]) | (hz > TELEPHONE_HZ[1])] = 0
    band = np.clip(np.fft.irfft(spectrum, len(samples)), -1, 1)
    companded = np.round(np.sign(band) * np.log1p(MU * np.abs(band)) / np.log1p(MU) * 127) / 127
    return (np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(MU)) / MU).astype(np.float32)


def noisy(snr_db: float) -> Condition:
    """Returns the condition that adds white noise to samples, f32 [n], so many dB below their power."""

    def add(samples: np.ndarray, rate_hz: int, random: np.random.Generator) -> np.ndarray:
        power = float(np.mean(samples**2))
        noise = random.standard_normal(len(samples)) * np.sqrt(power * 10 ** (-snr_db / 10))
        return np.clip(samples + noise, -1, 1).astype(np.float32)

    return add


def quiet(samples: np.ndarray, rate_hz: int, random: np.random.Generator) -> np.ndarray:
    """Divides samples, f32 [n], by 100."""
    return samples * np.float32(0.01)


CONDITIONS: dict[str, Condition] = {
    "telephone": telephone,
    "noise 20 dB": noisy(20.0),
    "noise 10 dB": noisy(10.0),
    "40 dB lower": quiet,
}


def degraded(condition: str, corpus: Corpus, build: Path) -> Corpus:
    """Makes some utterances of the corpus under a condition, in build/conditions/<digest>/, once, and returns them. Raises
    OutputError."""
    folder = build / "conditions" / digest_json([corpus.digest, condition, MOST_UTTERANCES])[:16]
    folder_once(folder, lambda made: _write(made, condition, corpus))
    return read_corpus(folder / "manifest.jsonl", corpus.utterances[0].sample_rate_hz)


def _write(folder: Path, condition: str, corpus: Corpus) -> None:
    import soundfile

    rows = []
    for i, utterance in enumerate(corpus.utterances[:: -(-len(corpus.utterances) // MOST_UTTERANCES)]):
        rate_hz = utterance.sample_rate_hz
        samples = CONDITIONS[condition](utterance.samples(), rate_hz, np.random.default_rng(i))
        soundfile.write(folder / f"{i:03d}.flac", samples, rate_hz, subtype="PCM_16")
        texts = {"text": utterance.text, "lang": utterance.language, "target_lang": utterance.prompt_language}
        rows.append({"audio_filepath": f"{i:03d}.flac", **texts})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
