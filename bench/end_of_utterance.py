"""Ends of utterances in a live stream: how late their events come, how many are missed, how many come within an utterance.

    python bench/end_of_utterance.py ARTIFACT [--manifest reference/audio/eval.jsonl] [--pauses 0.3 0.5 0.7 1 1.5 2] [--rounds 2]

ARTIFACT: a variant of a model that marks them. The utterances of the manifest follow each other in one stream for each pause
behind them, in random order, without the quiet around them, over faint noise, and are fed in packets of 10 ms. So the end of the
speech is known to a few milliseconds. The latency of an event is the audio from there to the end of the packet with which it
came: what the model and its chunks take, without computing. An event before the end of the speech is a false one, within an
utterance; a pause without one is a missed end; more than one in a pause counts as one end and as false ones.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import read_corpus

ROOT = Path(__file__).resolve().parent.parent
QUIET = 0.01  # of the loudest sample: what is below at both ends is not speech
PACKET_S = 0.01
NOISE = 3e-4  # deviation of the noise under all of it, as a microphone's


@dataclass
class Found:
    """What the events of a stream are: seconds behind the speech of each; how many came in speech, twice, or not at all."""

    latencies: list[float] = field(default_factory=list)
    within: int = 0
    again: int = 0
    missed: int = 0


def spoken(samples: np.ndarray) -> np.ndarray:
    """Returns samples f32 [n] without the quiet around them."""
    loud = np.flatnonzero(np.abs(samples) > QUIET * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def stream_of(clips: list[np.ndarray], pause_s: float, rate_hz: int, seed: int) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Returns the clips in random order with pauses behind them, f32 [n], and start and end of each in seconds."""
    rng, pieces, places, at = random.Random(seed), [np.zeros(rate_hz // 2, np.float32)], [], rate_hz // 2
    for clip in rng.sample(clips, len(clips)):
        places.append((at / rate_hz, (at + len(clip)) / rate_hz))
        pieces += [clip, np.zeros(int(pause_s * rate_hz), np.float32)]
        at += len(pieces[-1]) + len(clip)
    samples = np.concatenate(pieces)
    return samples + NOISE * np.random.default_rng(seed).standard_normal(len(samples), dtype=np.float32), places


def event_times(recognizer: Recognizer, samples: np.ndarray) -> list[float]:
    """Returns the seconds of audio that were fed when each event came."""
    stream, packet, came, known = recognizer.stream(), int(PACKET_S * recognizer.sample_rate_hz), [], 0
    kinds = recognizer.session.spec.events.kinds if recognizer.session.spec.events else {}
    for at in range(0, len(samples), packet):
        new = stream.feed(samples[at : at + packet])
        came += [min(at + packet, len(samples)) / recognizer.sample_rate_hz] * sum(token in kinds for token in new)
        known += len(new)
    return came


def judged(came: list[float], places: list[tuple[float, float]]) -> Found:
    """Assigns each event to the utterance that began last before it."""
    found, by_utterance = Found(), [[] for _ in places]
    starts = np.array([start for start, _ in places])
    for second in came:
        by_utterance[max(int(np.searchsorted(starts, second)) - 1, 0)].append(second)
    for (_, end), events in zip(places, by_utterance, strict=True):
        behind = [second - end for second in events if second >= end]
        found.within += len(events) - len(behind)
        found.latencies += behind[:1]
        found.again += len(behind[1:])
        found.missed += not behind
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of ends of utterances.")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--manifest", type=Path, default=ROOT / "reference" / "audio" / "eval.jsonl")
    parser.add_argument("--pauses", type=float, nargs="*", default=[0.3, 0.5, 0.7, 1.0, 1.5, 2.0], help="seconds")
    parser.add_argument("--longest", type=float, default=10.0, help="seconds of an utterance; longer ones have pauses inside")
    parser.add_argument("--rounds", type=int, default=1, help="orders of the utterances")
    args = parser.parse_args()
    recognizer = Recognizer.open(args.artifact, threads=1)
    corpus = read_corpus(args.manifest, recognizer.sample_rate_hz)
    clips = [spoken(u.samples()) for u in corpus.utterances if u.seconds <= args.longest]
    print("| pause, s | ends | missed | p50, ms | p90 | p95 | longest | within utterances | twice | a minute of speech |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for pause_s in args.pauses:
        total = Found()
        for seed in range(args.rounds):
            samples, places = stream_of(clips, pause_s, recognizer.sample_rate_hz, seed)
            found = judged(event_times(recognizer, samples), places)
            total.latencies += found.latencies
            total.within, total.again, total.missed = (
                total.within + found.within,
                total.again + found.again,
                total.missed + found.missed,
            )
        n = len(clips) * args.rounds
        p50, p90, p95, most = (1000 * np.percentile(total.latencies or [np.nan], share) for share in (50, 90, 95, 100))
        minutes = args.rounds * sum(map(len, clips)) / recognizer.sample_rate_hz / 60
        row = f"| {pause_s:g} | {n} | {total.missed} | {p50:.0f} | {p90:.0f} | {p95:.0f} | {most:.0f} "
        print(f"{row}| {total.within} | {total.again} | {(total.within + total.again) / minutes:.1f} |", flush=True)


if __name__ == "__main__":
    main()
