"""Trains a reference checkpoint on two CPU cores.

``python -m nemoport.reference.train --corpus corpus.jsonl [--recordings FILE ... --weights N ...] --out x.nemo
--minutes 85 [--init x.nemo | --preset reference-tdt or reference-multilingual [--init-encoder streaming.nemo]]``

From scratch, the first stage takes short clips until both losses are low; with ``--init`` it is left out. The learning
rate falls along a cosine over the wall clock, because the speed of a shared machine cannot be foreseen; the data
and every random draw follow from --seed, the number of steps does not.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from . import conditioning, data, evaluate, kinds, model, prompt, prompted, reader, step

WARM_UP_STEPS = 200
FIRST_STAGE_SECONDS, FIRST_STAGE_TOKENS = 48.0, 12  # audio a batch; clips of fewer tokens count as short
CHAIN_SHARE = 0.1  # of the batches; chains of clips are what long streams and pauses are learned from
# An encoder of full context runs on whole recordings at once, so it also needs long ones, and silence from end to end.
LONG_SHARE, SILENT_SHARE = 0.12, 0.05


def save(asr: Any, path: Path) -> None:
    """Saves a model in training as a .nemo file, with NeMo's defaults."""
    asr.joint.log_softmax = None  # NeMo's default, which ``step.losses`` turned off
    model.save(asr, path)


def score(asr: Any, sets: dict[str, list[dict]], lookaheads: list[int]) -> None:
    """Prints word error rates in percent and goes back to training."""
    asr.eval()
    dither, asr.preprocessor.featurizer.dither = asr.preprocessor.featurizer.dither, 0.0
    asr.joint.log_softmax = None
    show = partial(print, flush=True)
    if kinds.kind_of(asr) == "prompt":
        # On the way the own prompt is enough.
        prompted.table(asr, sets, lookaheads, show, ("own",) if len(lookaheads) == 1 else prompted.PROMPTS)
    else:
        evaluate.table(asr, sets, lookaheads, show)
    asr.preprocessor.featurizer.dither = dither
    asr.encoder.set_default_att_context_size(asr.encoder.att_context_size_all[0])
    asr.train()


def evaluation_sets(recordings: list[Path], kind: kinds.Kind) -> dict[str, list[dict]]:
    """Committed evaluation speech by its ``set``; for the streaming kind also the held-out sentences of the recordings."""
    if kind == "prompt":
        return evaluate.by_set(Path(__file__).parent / "audio/eval-multi.jsonl", as_written=True)
    if kind == "tdt":
        return evaluate.by_set(Path(__file__).parent / "audio/eval-tdt.jsonl", as_written=True)
    committed = evaluate.committed_rows(Path(__file__).parent / "audio/eval.jsonl")
    sets = {f"eval: {name}": [row for row in committed if row["set"] == name] for name in ("grammar", "unseen", "long")}
    for path in recordings:
        if rows := reader.rows(path, held_out=True):
            sets[f"held-out sentences of {path.stem}"] = rows
    return sets


def start(args: argparse.Namespace) -> tuple[Any, list[data.Clip]]:
    """Makes the model, restored from --init or built and conditioned, and its clips, each as often as its weight."""
    asr = model.restore(args.init) if args.init else None
    size = model.PRESETS[args.preset]
    kind = kinds.kind_of(asr) if asr else size.kind
    tdt, prompted = kind == "tdt", kind == "prompt"
    synthetic = [data.synthetic_rows(path, as_written=tdt) for path in args.corpus]
    rows_of = {"tdt": reader.written_rows, "prompt": reader.prompted_rows}.get(kind, partial(reader.rows, held_out=False))
    recorded = [rows_of(path) for path in args.recordings]
    if not asr:
        torch.manual_seed(args.seed)
        lines = [row["text"] for rows in (*synthetic, *recorded) for row in rows]
        # NeMo copies these files into the checkpoint whenever it saves, so they stay for the whole run.
        asr = model.build(
            size, model.write_tokenizer(lines, size.vocabulary, args.out.parent / "tokenizer", prompt.TAGS if prompted else ())
        )
    step.prepare(asr, args.seed, args.spec_augment, args.freeze_subsampling)
    clips = []
    for rows, weight in zip(synthetic, args.corpus_weights, strict=True):
        clips += data.load(rows, asr.tokenizer.text_to_ids, recorded=False, tagged=prompted) * weight
    for rows, weight in zip(recorded, args.weights, strict=True):
        clips += data.load(rows, asr.tokenizer.text_to_ids, recorded=True, tagged=prompted) * weight
    if not args.init:
        audio = data.collate(next(data.batches(clips, 200, 0.0, args.seed)))[:2]
        if args.init_encoder and not tdt:
            conditioning.copy_encoder(model.restore(args.init_encoder), asr)
        elif args.init_encoder:
            conditioning.transplant(model.restore(args.init_encoder), asr, *audio)
        else:
            conditioning.condition(asr, *audio)
    return asr, clips


def free_threads(most: int, now: int) -> int:
    """Number of threads to go on with, ``now`` being in use: one a core that others leave free, by the load of a minute.

    Two threads wait for each other at every operation, so on a core that they share with others they lose to one alone.
    """
    others = max(0.0, os.getloadavg()[0] - now)
    return max(1, min(most, round((os.cpu_count() or 1) - others)))


def fit(asr: Any, clips: list[data.Clip], sets: dict[str, list[dict]], args: argparse.Namespace) -> None:
    """Trains until --minutes are over, saving to --out and scoring on the way and at the end.

    Raises ValueError where there are no clips to train on.
    """
    ctc_head = torch.nn.Linear(asr.encoder.d_model, asr.joint.num_classes_with_blank)
    parameters = [p for p in (*asr.parameters(), *ctc_head.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
    short = [clip for clip in clips if len(clip.tokens) < FIRST_STAGE_TOKENS and not clip.recorded]
    first_stage, n_steps, epoch = not (args.init or args.init_encoder), 0, 0
    if not (short if first_stage else clips):
        raise ValueError("there are no clips to train on; see the lengths in data.load and FIRST_STAGE_TOKENS, or add speech")
    kind = kinds.kind_of(asr)
    transducer_loss = ctc_loss = math.inf  # of the last step, in nats a token
    long_share = LONG_SHARE if kind == "tdt" else 0.0
    silent_share = 0.0 if kind == "streaming" else SILENT_SHARE
    auto_share = args.auto_share if kind == "prompt" else None
    start_s = saved_s = shown_s = time.monotonic()
    while True:
        pool, seconds, chains = (short, FIRST_STAGE_SECONDS, 0.0) if first_stage else (clips, args.batch_seconds, CHAIN_SHARE)
        for batch in data.batches(
            pool,
            seconds,
            chains,
            args.seed * 1000 + epoch,
            0.0 if first_stage else long_share,
            args.longest_chain,
            silent_share,
            auto_share,
        ):
            now_s = time.monotonic()
            done = (now_s - start_s) / 60 / args.minutes
            if done >= 1:
                save(asr, args.out)
                score(asr, sets, sorted(kinds.context(kind)[1], reverse=True))
                return
            rate = args.rate * min(1, (n_steps + 1) / WARM_UP_STEPS) * (0.5 * (1 + math.cos(math.pi * done)) + 0.005)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
                transducer, ctc = step.losses(asr, ctc_head, data.collate(batch))
            optimizer.zero_grad()
            ((1 - args.ctc_weight) * transducer + args.ctc_weight * ctc).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            n_steps += 1
            transducer_loss, ctc_loss = transducer.item(), ctc.item()
            if now_s - shown_s > 30:
                shown_s = now_s
                torch.set_num_threads(free_threads(args.threads, torch.get_num_threads()))
                print(
                    f"{now_s - start_s:.0f} s, step {n_steps}, epoch {epoch}, transducer {transducer_loss:.3f}, "
                    f"ctc {ctc_loss:.3f} nats a token, {torch.get_num_threads()} threads",
                    flush=True,
                )
            if now_s - saved_s > 60 * args.save_minutes:
                saved_s = now_s
                save(asr, args.out)
                score(asr, sets, [13])
        first_stage = first_stage and not (transducer_loss < 1.2 and ctc_loss < 1.7)
        epoch += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the reference checkpoint.")
    parser.add_argument("--corpus", type=Path, nargs="+", required=True, help="manifests made by reference.corpus")
    parser.add_argument("--corpus-weights", type=int, nargs="*", help="times each of them is used in an epoch (1)")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[], help="manifests of recordings (optional)")
    parser.add_argument("--weights", type=int, nargs="*", default=[], help="times each manifest is used in an epoch")
    parser.add_argument("--init", type=Path, help="a .nemo file of the same structure to go on from")
    parser.add_argument("--preset", choices=sorted(model.PRESETS), default="reference", help="what to build without --init")
    parser.add_argument("--init-encoder", type=Path, help="a trained streaming .nemo for the encoder to start from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=85.0)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    # The auxiliary head trains the encoder itself; from scratch, without it, the predictor learns the text alone.
    parser.add_argument("--ctc-weight", type=float, default=0.3)
    parser.add_argument("--auto-share", type=float, default=1 / 3, help="prompted: share of examples whose prompt is auto")
    parser.add_argument("--spec-augment", action="store_true", help="NeMo's SpecAugment; for runs of many hours")
    parser.add_argument("--freeze-subsampling", action="store_true", help="with --init: a fifth faster")
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="multiply in bfloat16; 1.6 times as fast where the CPU has avx512_bf16 or amx_bf16",
    )
    parser.add_argument("--batch-seconds", type=float, default=64.0)
    parser.add_argument("--longest-chain", type=float, default=120.0, help="seconds; for the TDT kind")
    parser.add_argument("--save-minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="at most; fewer while other work keeps the cores busy")
    args = parser.parse_args()
    if len(args.weights) != len(args.recordings):
        parser.error(f"--weights needs one number for each of the {len(args.recordings)} manifests of --recordings")
    args.corpus_weights = args.corpus_weights or [1] * len(args.corpus)
    if len(args.corpus_weights) != len(args.corpus):
        parser.error(f"--corpus-weights needs one number for each of the {len(args.corpus)} manifests of --corpus")
    if missing := [str(path) for path in args.corpus if not path.is_file()]:
        parser.error(f"there is no {', '.join(missing)}; make it with python -m nemoport.reference.corpus")
    torch.set_num_threads(args.threads)
    asr, clips = start(args)
    fit(asr, clips, evaluation_sets(args.recordings, kinds.kind_of(asr)), args)


if __name__ == "__main__":
    main()
