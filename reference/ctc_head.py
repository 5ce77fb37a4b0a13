"""Trains CTC heads for the committed checkpoints, and the last layer of the encoder with them.

``python -m nemoport.reference.ctc_head --checkpoint x.nemo --corpus corpus.jsonl ... --heads FILE``
puts both, under the checkpoint's name, into a safetensors file; ``ctc`` makes checkpoints of it.

A head alone, on the frames that the transducer was trained for, leaves out tokens: there are about two tokens to three
frames, and CTC needs each on a frame of its own. So the last layer learns to spread them, and the transducer's loss, of the
same frames, holds it to what the transducer needs. All that is below the last layer is run once.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path
from typing import Any

import torch

from . import data, kinds, loss, model, prompt

BATCH_SECONDS, CHAIN_SHARE, SILENT_SHARE = 64.0, 0.1, 0.05
HEAD_RATE, LAYER_RATE, WARM_UP_STEPS = 1e-2, 1e-3, 100  # of Adam at most; they fall along a cosine
TRANSDUCER_EVERY = 3  # steps; its loss takes twice the time of all else

# What the last layer takes, n_frames i64 [B], targets i64 [B, U], n_labels i64 [B].
Batch = tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]


@torch.no_grad()
def encoded(asr: Any, clips: list[data.Clip], seed: int) -> list[Batch]:
    """Runs what is below the last layer on every clip, offline, augmented as in training; the lookaheads take turns."""
    left, lookaheads = kinds.context(kinds.kind_of(asr))
    taken: list[dict[str, torch.Tensor]] = []
    hook = asr.encoder.layers[-1].register_forward_pre_hook(lambda layer, args, inputs: taken.append(inputs), with_kwargs=True)
    batches = []
    for number, batch in enumerate(data.batches(clips, BATCH_SECONDS, CHAIN_SHARE, seed, silent_share=SILENT_SHARE)):
        if lookaheads:
            asr.encoder.set_default_att_context_size([left, lookaheads[number % len(lookaheads)]])
        audio, n_samples, targets, n_labels, _, _ = data.collate(batch)
        _, n_frames = prompt.encode(asr, audio, n_samples)
        inputs = {key: value for key, value in taken.pop().items() if value is not None}
        batches.append((inputs | dict(x=inputs["x"].bfloat16()), n_frames, targets, n_labels))
    hook.remove()
    return batches


def losses(asr: Any, head: torch.nn.Linear, batch: Batch, transducer: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Computes CTC loss and, if asked for, transducer (or TDT) loss of one batch, each in nats a token."""
    inputs, n_frames, targets, n_labels = batch
    frames = asr.encoder.layers[-1](**inputs | dict(x=inputs["x"].float()))  # f32 [B, T, d]
    blank, n_tokens = len(asr.tokenizer.vocab), n_labels.sum().clamp(min=1)
    log_probs = torch.log_softmax(head(frames).float(), -1).transpose(0, 1)
    ctc = torch.nn.functional.ctc_loss(log_probs, targets, n_frames, n_labels, blank=blank, reduction="sum", zero_infinity=True)
    if not transducer:
        return ctc / n_tokens, None
    predictions, _, _ = asr.decoder(targets=targets, target_length=n_labels)
    logits = asr.joint(encoder_outputs=frames.transpose(1, 2), decoder_outputs=predictions)
    if kinds.is_tdt(asr):
        other = loss.tdt_loss(logits, targets, n_frames, n_labels, blank, kinds.TDT_SIGMA)
    else:
        other = loss.transducer_loss(logits, targets, n_frames, n_labels, blank)
    return ctc / n_tokens, other.sum() / n_tokens


def fit(asr: Any, head: torch.nn.Linear, batches: list[Batch], epochs: int, seed: int) -> None:
    """Trains a head and the last layer of the encoder of ``asr``; prints the losses of each epoch."""
    rng = random.Random(f"ctc head {seed}")
    asr.requires_grad_(False)
    asr.joint.log_softmax = False  # the losses normalise
    layer = asr.encoder.layers[-1].requires_grad_(True)
    optimizer = torch.optim.Adam(
        [dict(params=head.parameters(), rate=HEAD_RATE), dict(params=layer.parameters(), rate=LAYER_RATE)], betas=(0.9, 0.98)
    )
    n_steps = 0
    for epoch in range(epochs):
        rng.shuffle(batches)
        sums = {"CTC": [], "transducer": []}
        for batch in batches:
            scale = min(1, (n_steps + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * n_steps / epochs / len(batches)))
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * scale
            with torch.autocast("cpu", torch.bfloat16):
                ctc, transducer = losses(asr, head, batch, transducer=n_steps % TRANSDUCER_EVERY == 0)
            optimizer.zero_grad()
            (ctc if transducer is None else ctc + TRANSDUCER_EVERY * transducer).backward()
            torch.nn.utils.clip_grad_norm_([*head.parameters(), *layer.parameters()], 1.0)
            optimizer.step()
            n_steps += 1
            for title, value in (("CTC", ctc), ("transducer", transducer)):
                sums[title] += [] if value is None else [value.item()]
        means = ", ".join(f"{title} {sum(values) / len(values):.3f}" for title, values in sums.items())
        print(f"epoch {epoch}: {means} nats a token, {n_steps} steps", flush=True)


def parts(asr: Any, head: torch.nn.Linear) -> dict[str, torch.nn.Parameter]:
    """What is trained, by its name in the file behind that of the checkpoint: ``head.weight`` [V+1, d], ``layer.`` and so on."""
    modules = dict(head=head, layer=asr.encoder.layers[-1])
    return {f"{part}.{key}": value for part, module in modules.items() for key, value in module.named_parameters()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains a CTC head for a checkpoint.")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, nargs="+", required=True, help="manifests made by reference.corpus")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--heads", type=Path, required=True, help="the safetensors file; training goes on from what it has")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # digital silence makes denormals, which are slow
    asr = model.restore(args.checkpoint)
    torch.manual_seed(args.seed)
    head = torch.nn.Linear(asr.encoder.d_model, len(asr.tokenizer.vocab) + 1)
    tensors = load_file(args.heads) if args.heads.exists() else {}
    trained = {f"{args.checkpoint.stem}.{key}": value for key, value in parts(asr, head).items()}
    for key, value in trained.items():
        value.data = tensors.get(key, value.data).float()
    rows = [row for path in args.corpus for row in data.synthetic_rows(path, as_written=kinds.is_tdt(asr))]
    batches = encoded(asr, data.load(rows, asr.tokenizer.text_to_ids, recorded=False), args.seed)
    print(f"{len(batches)} batches", flush=True)
    fit(asr, head, batches, args.epochs, args.seed)
    tensors |= {key: value.detach().half().contiguous() for key, value in trained.items()}
    save_file(dict(sorted(tensors.items())), args.heads)


if __name__ == "__main__":
    main()
