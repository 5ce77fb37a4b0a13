"""Trains predictor and joint of the checkpoint that marks ends of utterances, over the frozen encoder of ``eou.SOURCE``.

``python -m nemoport.reference.eou_training --corpus corpus.jsonl --out streaming-eou.safetensors [--steps N]``

The speech is made of clips in a row: one to three utterances with pauses behind each, some of two clips with a short pause
inside, some backchannels. Each utterance is a transducer example of its own, from the end of the one before to shortly behind its
end, with ``<EOU>`` or ``<EOB>`` as its last token: the predictor begins anew at each, as the decoder does behind such a token.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from . import data, eou, loss, reader, speech, voices

BACKCHANNELS = ("uh huh", "okay", "yeah", "mm hmm", "right", "i see", "sure", "oh", "yes", "all right")
BEHIND_FRAMES = 30  # 2.4 s
BATCH, BATCH_FRAMES = 40, 1600  # utterances of a step at most, and their frames with padding


class Utterance(NamedTuple):
    """What one transducer example is made of: encoder frames f16 [T, d], tokens that end with an event, and the frames behind
    them, f16 [T', d]: the pause, and the beginning of the next utterance."""

    frames: torch.Tensor
    tokens: list[int]
    behind: torch.Tensor


def backchannels(tokens_of: Any, clips: int, rng: random.Random) -> list[data.Clip]:
    """Synthesises backchannels in the training voices."""
    return [
        data.Clip((speech.synthesise(text, voices.draw(rng, "train", "en")) * 32767).astype(np.int16), tokens_of(text), False)
        for text in rng.choices(BACKCHANNELS, k=clips)
    ]


def _sound(clip: data.Clip, rng: random.Random) -> np.ndarray:
    """Samples f32 [n] of a clip without the quiet around it, at a level and a speed of their own."""
    samples = speech.trim(clip.samples.astype(np.float32) / 32768, 0.01)
    if rng.random() < 0.2:
        samples = data.changed_speed(samples, rng.uniform(0.9, 1.1))
    return samples * rng.uniform(0.3, 1.0) / max(1e-3, float(np.abs(samples).max()))


def row(
    clips: list[data.Clip], short: list[data.Clip], rng: random.Random, noise: np.random.Generator, events: list[int]
) -> tuple:
    """Makes utterances in a row: samples f32 [n], and (end of its stretch in samples, tokens) of each utterance.

    A stretch ends 0.4 to 0.56 s behind the last word: that is where the event must have come. A fifth of the rows end there.
    """
    pieces, ends, n_samples = [data.silence(rng, 0.6)], [], 0
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.12:
            clip = rng.choice(short)
            tokens, sounds = [*clip.tokens, events[1]], [_sound(clip, rng)]
        else:
            parts = rng.choices(clips, k=2 if rng.random() < 0.25 else 1)
            tokens, sounds = [token for part in parts for token in part.tokens] + [events[0]], []
            for part in parts:
                pause = [np.zeros(int(rng.uniform(0.05, 0.3) * data.SAMPLE_RATE_HZ), np.float32)] if sounds else []
                sounds += [*pause, _sound(part, rng)]
        pieces += sounds
        n_samples = sum(map(len, pieces))
        ends.append((n_samples + int(rng.uniform(0.4, 0.56) * data.SAMPLE_RATE_HZ), tokens))
        pieces.append(np.zeros(int(rng.uniform(0.7, 2.5) * data.SAMPLE_RATE_HZ), np.float32))
    samples = np.concatenate(pieces)
    if rng.random() < 0.2:
        samples = samples[: ends[-1][0]]
    if rng.random() < 0.5:
        floor = float(np.sqrt(np.mean(samples**2))) * 10 ** (-rng.uniform(20, 50) / 20)
        samples = samples + floor * noise.standard_normal(len(samples), dtype=np.float32)
    return samples.astype(np.float32), ends


def utterances(asr: Any, rows: Iterator[tuple]) -> Iterator[Utterance]:
    """Encodes rows in batches and cuts their frames to utterances. What follows the last one is an example without a token."""
    while group := list(itertools.islice(rows, 8)):
        audio = [torch.from_numpy(samples) for samples, _ in group]
        with torch.no_grad():
            frames, n_frames = asr.forward(
                input_signal=torch.nn.utils.rnn.pad_sequence(audio, batch_first=True),
                input_signal_length=torch.tensor([len(one) for one in audio]),
            )
        for i, (_, ends) in enumerate(group):
            start, last = 0, int(n_frames[i])
            for sample, tokens in ends:
                end = min(round(sample / data.SAMPLES_PER_ENC_FRAME), last)
                stop = min(end + BEHIND_FRAMES, last)
                yield Utterance(frames[i, :, start:end].T.half(), tokens, frames[i, :, end:stop].T.half())
                start = end
            if last - start > 3:
                yield Utterance(frames[i, :, start:last].T.half(), [], frames[i, :, last:last].T.half())


def batches(examples: list[Utterance], seed: int) -> Iterator[list[Utterance]]:
    """Batches of one pass over the examples; those of like length share a batch."""
    rng = random.Random(f"eou {seed}")
    order = sorted(examples, key=lambda one: len(one.frames) * rng.uniform(0.8, 1.2))
    groups, start = [], 0
    while start < len(order):
        stop = start + 1
        while stop < min(len(order), start + BATCH) and len(order[stop].frames) * (stop - start + 1) <= BATCH_FRAMES:
            stop += 1
        groups.append(order[start:stop])
        start = stop
    rng.shuffle(groups)
    yield from groups


def step_loss(asr: Any, batch: list[Utterance], blank: int) -> torch.Tensor:
    """Transducer loss of a batch, in nats a token, and the cross-entropy of blank on frames behind an event without a reset.

    NeMo's data for such models are single utterances: what follows an event is blank for ever, and a model that is not reset
    falls silent. Without the second part this one would go on as if it had been reset.
    """
    pad = torch.nn.utils.rnn.pad_sequence
    frames = pad([one.frames.float() for one in batch], batch_first=True).transpose(1, 2)
    targets = pad([torch.tensor(one.tokens, dtype=torch.long) for one in batch], batch_first=True)
    n_frames, n_labels = (torch.tensor([len(one[part]) for one in batch]) for part in (0, 1))
    predictions, _, _ = asr.decoder(targets=targets, target_length=n_labels)
    asr.joint.log_softmax = False
    logits = asr.joint(encoder_outputs=frames, decoder_outputs=predictions)
    transducer = loss.transducer_loss(logits, targets, n_frames, n_labels, blank).sum() / n_labels.sum().clamp(min=1)
    ended = torch.tensor([len(one.behind) > 0 for one in batch])
    if not ended.any():
        return transducer
    behind = pad([one.behind.float() for one in batch if len(one.behind)], batch_first=True)
    lengths = torch.tensor([len(one.behind) for one in batch if len(one.behind)])
    last = predictions[ended, :, n_labels[ended]][..., None]  # behind each one's event
    silent = asr.joint(encoder_outputs=behind.transpose(1, 2), decoder_outputs=last)[:, :, 0]
    valid = torch.arange(behind.shape[1])[None] < lengths[:, None]
    return transducer - torch.log_softmax(silent, -1)[..., blank][valid].mean()


def fit(asr: Any, examples: list[Utterance], steps: int, rate: float, seed: int) -> None:
    """Trains decoder and joint."""
    parameters = [*asr.decoder.parameters(), *asr.joint.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=1e-3)
    done, epoch, start_s, recent = 0, 0, time.process_time(), []
    asr.decoder.train()
    while done < steps:
        for batch in batches(examples, seed * 1000 + epoch):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, (done + 1) / 50) * (0.5 * (1 + math.cos(math.pi * done / steps)) + 0.005)
            value = step_loss(asr, batch, len(asr.tokenizer.vocab))
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            done += 1
            recent.append(value.item())
            if done % 50 == 0:
                shown = f"step {done}, epoch {epoch}, {np.mean(recent):.3f} nats a token"
                print(f"{shown}, {time.process_time() - start_s:.0f} s of processor", flush=True)
                recent = []
            if done == steps:
                break
        epoch += 1
    asr.eval()
    asr.joint.log_softmax = None


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the tokens that end utterances.")
    parser.add_argument("--corpus", type=Path, nargs="+", required=True, help="manifests made by reference.corpus")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[], help="manifests of recordings (optional)")
    parser.add_argument("--init", type=Path, help="weights to go on from")
    parser.add_argument("--rows", type=int, default=1200, help="rows of utterances that are made of the clips")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=eou.WEIGHTS)
    args = parser.parse_args()
    import tempfile

    from safetensors.torch import load_file, save_file

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)
    rng, noise = random.Random(f"eou rows {args.seed}"), np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        asr = eou.untrained(Path(folder))
        if args.init:
            asr.load_state_dict({name: weight.float() for name, weight in load_file(args.init).items()}, strict=False)
        tokens_of = asr.tokenizer.text_to_ids
        events = [asr.tokenizer.vocab.index(symbol) for symbol in eou.EVENTS]
        clips = [
            clip for path in args.corpus for clip in data.load(data.synthetic_rows(path, as_written=False), tokens_of, False)
        ]
        for path in args.recordings:
            clips += data.load(reader.rows(path, held_out=False), tokens_of, True)
        short = backchannels(tokens_of, 200, rng)
        start_s = time.process_time()
        examples = list(utterances(asr, (row(clips, short, rng, noise, events) for _ in range(args.rows))))
        seconds = sum(len(one.frames) for one in examples) * 0.08
        print(
            f"{len(examples)} utterances, {seconds / 3600:.1f} h, {time.process_time() - start_s:.0f} s of processor", flush=True
        )
        fit(asr, examples, args.steps, args.rate, args.seed)
        state = {name: weight for name, weight in asr.state_dict().items() if name.startswith(("decoder.", "joint."))}
        save_file({name: weight.half().contiguous() for name, weight in state.items()}, args.out)
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
