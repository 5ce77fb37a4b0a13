"""Trains the reference checkpoint on two CPU cores.

``python -m nemoport.reference.train --corpus corpus.jsonl [--recordings FILE ...] --out x.nemo --minutes 85 [--init x.nemo]``

From scratch, the first stage takes short clips until both losses are low; with ``--init`` it is left out. The learning
rate falls along a cosine over the wall clock, because the speed of a shared machine is not known beforehand; the data
and every random draw follow from --seed, the number of steps does not.
"""
from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from pathlib import Path

import torch

from . import conditioning, data, evaluate, loss, model, reader, text

WARM_UP_STEPS = 200
CTC_WEIGHT = 0.3  # the auxiliary head makes the encoder listen; without it the predictor learns the text alone


def losses(asr, ctc_head: torch.nn.Module, batch: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    """Transducer and CTC loss of one batch, each in nats a token."""
    audio, n_samples, targets, n_labels = batch
    frames, n_frames = asr.forward(input_signal=audio, input_signal_length=n_samples)  # f32 [B, d, T]
    predictions, _, _ = asr.decoder(targets=targets, target_length=n_labels)
    # On the CPU NeMo's joint normalises its output; normalising twice changes nothing but takes time.
    asr.joint.log_softmax = False
    logits = asr.joint(encoder_outputs=frames, decoder_outputs=predictions)  # f32 [B, T, U+1, V+1]
    blank = logits.shape[-1] - 1
    n_tokens = n_labels.sum()
    transducer = loss.transducer_loss(logits, targets, n_frames, n_labels, blank).sum() / n_tokens
    log_probs = torch.log_softmax(ctc_head(frames.transpose(1, 2)), -1).transpose(0, 1)
    ctc = torch.nn.functional.ctc_loss(log_probs, targets, n_frames, n_labels, blank=blank, reduction="sum",
                                       zero_infinity=True) / n_tokens
    return transducer, ctc


def prepare(asr, seed: int) -> None:
    """Seeds what NeMo draws by itself (SpecAugment, the lookahead of each batch) and drops the dropout that is slow.

    torch draws dropout masks on one core; the encoder's and the joint's took a tenth of the step, and with so much
    synthetic speech there is nothing to overfit. The predictor keeps its own, as the text is what repeats.
    """
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_flush_denormal(True)  # digital silence makes denormals, which are slow
    asr.spec_augmentation.spec_augment._rng = random.Random(seed)
    for part in (asr.encoder, asr.joint):
        for module in part.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif hasattr(module, "dropout_rate"):
                module.dropout_rate = 0.0
    asr.preprocessor.featurizer.dither = 1e-5
    asr.train()


def save(asr, path: Path) -> None:
    asr.joint.log_softmax = None  # NeMo's default, which ``losses`` turned off
    model.save(asr, path)


def score(asr, sets: dict[str, list[dict]], lookaheads: list[int]) -> None:
    """Prints word error rates in percent and goes back to training."""
    asr.eval()
    dither, asr.preprocessor.featurizer.dither = asr.preprocessor.featurizer.dither, 0.0
    asr.joint.log_softmax = None
    evaluate.table(asr, sets, lookaheads, lambda line: print(line, flush=True))
    asr.preprocessor.featurizer.dither = dither
    asr.encoder.set_default_att_context_size(asr.encoder.att_context_size_all[0])
    asr.train()


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the reference checkpoint.")
    parser.add_argument("--corpus", type=Path, required=True, help="manifest of synthetic speech")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[], help="manifests of recordings (optional)")
    parser.add_argument("--weights", type=int, nargs="*", default=[], help="times each manifest is used in an epoch")
    parser.add_argument("--init", type=Path, help="a .nemo file of the same structure to go on from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=85.0)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--batch-seconds", type=float, default=64.0)
    parser.add_argument("--save-minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if len(args.weights) != len(args.recordings):
        parser.error(f"--weights needs one number for each of the {len(args.recordings)} manifests of --recordings")

    synthetic = data.synthetic_rows(args.corpus)
    recorded = [reader.rows(path, held_out=False) for path in args.recordings]
    if args.init:
        asr = model.restore(args.init)
    else:
        with tempfile.TemporaryDirectory() as folder:
            size = model.PRESETS["reference"]
            lines = [row["text"] for rows in (synthetic, *recorded) for row in rows]
            asr = model.build(size, model.write_tokenizer(lines, size.vocabulary, Path(folder)))
    prepare(asr, args.seed)
    clips = data.load(synthetic, asr.tokenizer.text_to_ids, recorded=False)
    for rows, weight in zip(recorded, args.weights):
        clips += data.load(rows, asr.tokenizer.text_to_ids, recorded=True) * weight
    if not args.init:
        conditioning.condition(asr, *data.collate(next(data.batches(clips, 200, 0.0, args.seed)))[:2])
    sets = {f"eval: {kind}": [row for row in evaluate.committed_rows(Path(__file__).parent / "audio/eval.jsonl")
                              if row["set"] == kind] for kind in ("grammar", "unseen", "long")}
    for path in args.recordings:
        if rows := reader.rows(path, held_out=True):
            sets[f"held-out sentences of {path.stem}"] = rows

    ctc_head = torch.nn.Linear(asr.encoder.d_model, asr.joint.num_classes_with_blank)
    parameters = [*asr.parameters(), *ctc_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    short = [clip for clip in clips if len(clip.tokens) < 12 and not clip.recorded]
    first_stage, step, epoch = not args.init, 0, 0
    start_s = saved_s = shown_s = time.monotonic()
    while True:
        pool, seconds = (short, 48.0) if first_stage else (clips, args.batch_seconds)
        for batch in data.batches(pool, seconds, 0.0 if first_stage else 0.1, args.seed * 1000 + epoch):
            now_s = time.monotonic()
            done = (now_s - start_s) / 60 / args.minutes
            if done >= 1:
                save(asr, args.out)
                score(asr, sets, list(model.LOOKAHEADS_ENC_FRAMES))
                return
            for group in optimizer.param_groups:
                group["lr"] = args.rate * min(1, (step + 1) / WARM_UP_STEPS) * (0.5 * (1 + math.cos(math.pi * done)) + 0.005)
            transducer, ctc = losses(asr, ctc_head, data.collate(batch))
            optimizer.zero_grad()
            ((1 - CTC_WEIGHT) * transducer + CTC_WEIGHT * ctc).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            if now_s - shown_s > 30:
                shown_s = now_s
                print(f"{now_s - start_s:.0f} s, step {step}, epoch {epoch}, transducer {transducer.item():.3f}, "
                      f"ctc {ctc.item():.3f} nats a token", flush=True)
            if now_s - saved_s > 60 * args.save_minutes:
                saved_s = now_s
                save(asr, args.out)
                score(asr, sets, [13])
        first_stage = first_stage and not (transducer.item() < 1.2 and ctc.item() < 1.7)
        epoch += 1


if __name__ == "__main__":
    main()
