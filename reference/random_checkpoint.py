"""Writes randomly initialised checkpoints of the published structures, for tests and for measuring speed and memory.

``python -m nemoport.reference.random_checkpoint --preset nemotron-en-0.6b --out x.nemo [--seed 0]``
(``presets.py`` has them all: the published dimensions by the model's name on the Hub, and ``tiny-...`` of each structure, which
take seconds)

Plain random weights are useless for comparing tokens: the encoder gives one vector for every input, and greedy search
emits a token at every chance, or none. ``animate.py`` makes the output depend on the audio, as a trained model's does:
on the pseudo-speech below about three tokens a second come out, on other audio a few. The words mean nothing.
Neither espeak-ng nor a word list is needed: tokenizer text and audio are made here from the seed.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from pathlib import Path

import numpy as np

from . import animate, model, prompt, text

SAMPLE_RATE_HZ = 16000
# Counted from the published dimensions; a change of structure shows here first.
PARAMETERS = {
    "nemotron-en-0.6b": 618_080_000,
    "nemotron-3.5-asr-0.6b": 638_000_000,
    "parakeet-tdt-0.6b-v3": 627_000_000,
    "parakeet-ctc-0.6b": 608_800_000,
    "parakeet-ctc-1.1b": 1_062_540_000,
    "parakeet-rnnt-0.6b": 616_692_000,
    "parakeet-rnnt-1.1b": 1_070_433_000,
    "parakeet-tdt-1.1b": 1_070_436_000,
    "parakeet-tdt_ctc-1.1b": 1_071_487_000,
    "parakeet-tdt_ctc-110m": 114_625_000,
    "parakeet-tdt_ctc-0.6b-ja": 622_469_000,
    "parakeet-unified-en-0.6b": 618_265_000,
    "parakeet_realtime_eou_120m-v1": 115_016_000,
    "stt_en_fastconformer_hybrid_large_streaming_multi": 114_753_000,
}


def tokenizer_lines(vocabulary: int = 1024, scripts: bool = False) -> list[str]:
    """Lines of text, rich enough for that many BPE tokens: grammar sentences and words of one to three made-up syllables.

    ``scripts`` adds a few lines of kana and Devanagari, whose characters are three bytes each.
    """
    rng = random.Random("tokenizer")
    onsets = (
        "b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p ph pl pr qu r s sc sh sl sm sn sp st str sw t th tr v w wh y z"
    ).split()
    rimes = (
        "a ab ack ad ain all am an and ar ate ay e ead eam ed eep ell en ent er es est et ew i ice ick ide ight ill in ine "
        "ing ip ire ish ive o oad ock oil old on ong oon op or ore ot ound ous out ow ox u ub uck ug um un ure us ut"
    ).split()
    lines = list(itertools.islice(text.grammar_sentences("tokenizer", held_out=False), 2000))
    for _ in range(4000 * max(1, vocabulary // 1024)):
        words = ("".join(rng.choice(onsets) + rng.choice(rimes) for _ in range(rng.randint(1, 3))) for _ in range(8))
        lines.append(" ".join(words) + " it's")
    for alphabet in ("あいうえおかきくけこさしすせそたちつてと", "कखगघचछजझटठडढतथदधपफबभ") if scripts else ():
        lines += ["".join(rng.choice(alphabet) for _ in range(8)) for _ in range(200)]
    return lines


def pseudo_speech(seed: int, seconds: float) -> np.ndarray:
    """Synthesises samples f32 [n]: syllables of a buzzing tone through moving resonances, hiss between, and pauses."""
    rng = np.random.default_rng(seed)
    pieces, length = [], int(seconds * SAMPLE_RATE_HZ)
    while sum(map(len, pieces)) < length:
        n = int(rng.uniform(0.06, 0.3) * SAMPLE_RATE_HZ)
        time_s = np.arange(n) / SAMPLE_RATE_HZ
        kind = rng.random()
        if kind < 0.65:
            pitch_hz = rng.uniform(90, 250) * (1 + rng.uniform(-0.3, 0.3) * time_s)
            harmonics = np.arange(1, 30)[:, None]
            formants_hz = rng.uniform((300, 900, 2000), (900, 2200, 3500))
            gains = sum(np.exp(-(((harmonics * pitch_hz.mean() - f) / 200) ** 2)) for f in formants_hz)
            sound = (gains * np.sin(2 * np.pi * harmonics * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ)).sum(0)
        elif kind < 0.85:
            sound = np.diff(rng.standard_normal(n + 1)) * rng.uniform(0.1, 0.6)
        else:
            sound = np.zeros(n)
        pieces.append(sound * np.hanning(n) * rng.uniform(0.2, 1.0))
    samples = np.concatenate(pieces)[:length]
    return (0.5 * samples / np.abs(samples).max() + 1e-3 * rng.standard_normal(length)).astype(np.float32)


def pseudo_speech_batch(seed: int) -> np.ndarray:
    """Synthesises six clips of four seconds, loud to quiet: f32 [6, samples]."""
    return np.stack([pseudo_speech(1000 * seed + i, 4.0) * np.float32(0.7**i) for i in range(6)])


def write(preset: str, path: Path, seed: int = 0) -> tuple[int, float]:
    """Writes a random checkpoint; returns its number of parameters and the tokens a second on the pseudo-speech.

    Raises RuntimeError where the parameters are not the published model's.
    """
    import torch

    torch.manual_seed(seed)
    size = model.PRESETS[preset]
    with tempfile.TemporaryDirectory() as folder:
        prompted = size.kind == "prompt"
        asr = model.build(
            size,
            model.write_tokenizer(
                tokenizer_lines(size.vocabulary, scripts=prompted),
                size.vocabulary,
                Path(folder),
                prompt.TAGS if prompted else (),
                size.appended,
            ),
        )
        parameters = sum(parameter.numel() for parameter in asr.parameters())
        expected = PARAMETERS.get(preset, parameters)
        if abs(parameters - expected) > 10_000:
            raise RuntimeError(
                f"{preset}: {parameters} parameters, but the published model has about {expected}; "
                "the structure in reference/model.py has drifted"
            )
        rate = animate.animate(asr, pseudo_speech_batch(seed))
        asr.preprocessor.featurizer.dither = 1e-5
        model.save(asr, path)
    return parameters, rate


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a randomly initialised checkpoint.")
    parser.add_argument("--preset", choices=sorted(model.PRESETS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    parameters, rate = write(args.preset, args.out, args.seed)
    print(f"{args.out}: {parameters / 1e6:.2f} M parameters, {rate:.1f} tokens a second on pseudo-speech")


if __name__ == "__main__":
    main()
