"""How long until a word is final in a live stream: the committed evaluation speech as one long stream, with a beam and greedy.

A word's delay is from the encoder frame of its last token to the audio that has come in when that token is final. It holds the
wait for a full chunk, which greedy has too. Then each utterance alone: what the bound on the beam's delay changes in the texts.

Usage: python bench/finality.py build/streaming-en/kv-fp32 --beam 4
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np

from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import read_corpus
from nemoport.stream import Stream

CORPUS = Path(__file__).resolve().parent.parent / "reference" / "audio" / "eval.jsonl"
PACKET_MS = 20


def delays(stream: Stream, samples: np.ndarray, rate_hz: int) -> list[float]:
    """Returns the seconds until each token was final; those that only the end made final wait for it."""
    packet, final_at = rate_hz * PACKET_MS // 1000, []
    for end in range(packet, len(samples) + packet, packet):
        new = stream.feed(samples[end - packet : end])
        final_at += [min(end, len(samples)) / rate_hz] * len(new)
    final_at += [len(samples) / rate_hz] * len(stream.finish())
    return [at - second for at, second in zip(final_at, stream.token_seconds, strict=True)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("artifact", type=Path)
    options.add_argument("--beam", type=int, default=4)
    options.add_argument("--silence", type=float, default=10.0, help="seconds behind each utterance, noise 70 dB down")
    chosen = options.parse_args()
    beam = Recognizer.open(chosen.artifact, threads=1, beam=chosen.beam)
    rate_hz, search = beam.sample_rate_hz, beam._search
    assert search
    utterances = read_corpus(CORPUS, rate_hz).utterances
    texts = [utterance.text for utterance in utterances]
    silence = np.random.default_rng(0).standard_normal(round(chosen.silence * rate_hz)).astype("f4") * np.float32(3e-4)
    audio = np.concatenate([part for utterance in utterances for part in (utterance.samples(), silence)])
    print(f"{chosen.artifact.name}, {len(audio) / rate_hz / 60:.1f} minutes, packets of {PACKET_MS} ms")
    print(f"| lookahead | decoding | p50 s | p99 s | longest s | WER % alone | other texts of {len(texts)} |\n|" + "---|" * 7)
    for lookahead in beam.session.spec.lookaheads:
        without_bound: list[str] = []
        for name, changed in (
            ("greedy", None),
            (f"beam {chosen.beam}, no bound", replace(search, final_enc_frames=None)),
            (f"beam {chosen.beam}", search),
        ):
            beam.lookahead, beam._search = lookahead, changed
            stream = beam.stream()
            waits = delays(stream, audio, rate_hz)
            of_words = [
                wait
                for index, wait in enumerate(waits)
                if index + 1 == len(waits) or beam.text([stream.tokens[0], stream.tokens[index + 1]]).count(" ")
            ]
            done = beam.transcribe([(f"{i:04}", u.samples()) for i, u in enumerate(utterances)], streams=16)
            found = [hypothesis.text for hypothesis in sorted(done, key=lambda hypothesis: hypothesis.id)]
            if changed is not search:
                without_bound = found
            figures = *np.percentile(of_words, [50, 99]), max(of_words), 100 * jiwer.wer(texts, found)
            other = sum(a != b for a, b in zip(without_bound, found, strict=True)) if changed is search else ""
            print(f"| {lookahead} | {name} | {' | '.join(f'{figure:.2f}' for figure in figures)} | {other} |", flush=True)


if __name__ == "__main__":
    main()
