"""A checkpoint of parakeet-unified's structure that speaks, made from the committed TDT one by NeMo's own class.

``python -m nemoport.reference.unified OUT.nemo`` writes it, and ``--train corpus.jsonl ...`` first trains what is its own.
``--offline`` writes the same weights as a model of full context alone, parakeet-rnnt's kind.

The encoder is that of ``checkpoints/offline-tdt.nemo``: with biases of zero, and with the subsampling's last layer divided by
what ``xscaling`` multiplies it by. It was trained with full context, so short windows cost it more words than they cost the
published model. Predictor and joint, which begin as those of the TDT, learn on its frames, of full context and of chunks by
turns, to stay on a frame until blank; they are ``checkpoints/unified-rnnt.safetensors``.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from . import ctc, data, kinds, loss, model, presets, prompt

SOURCE = ctc.CHECKPOINTS / "offline-tdt.nemo"
TRAINED = ctc.CHECKPOINTS / "unified-rnnt.safetensors"
BATCH_SECONDS, CHAIN_SHARE, RATE, WARM_UP_STEPS = 48.0, 0.0, 2e-3, 30
CONTEXTS = ([-1, -1, -1], [70, 7, 7], [-1, -1, -1], [70, 13, 13], [70, 2, 2])  # that the training's batches take turns in


def build(tokenizer_folder: Path, kind: kinds.Kind = "unified") -> Any:
    """Builds the model, with predictor and joint of the TDT; the tokenizer's files must stay until it is saved.

    kind: "unified", or "rnnt", whose encoder has full context alone.
    """
    tdt = model.restore(SOURCE)
    size = replace(presets.PRESETS["reference-tdt"], kind=kind, use_bias=True, xscaling=True)
    made = model.build(size, ctc.unpack_tokenizer(SOURCE, tokenizer_folder)).eval()
    own = made.encoder.state_dict()
    encoder = {name: torch.zeros_like(own[name]) for name in own if name.endswith("bias")} | tdt.encoder.state_dict()
    for part in ("weight", "bias"):
        encoder[f"pre_encode.out.{part}"] = encoder[f"pre_encode.out.{part}"] / math.sqrt(size.d_model)
    made.encoder.load_state_dict(encoder)
    made.decoder.load_state_dict(tdt.decoder.state_dict())
    joint = tdt.joint.state_dict()
    for name in ("joint_net.2.weight", "joint_net.2.bias"):
        joint[name] = joint[name][: size.vocabulary + 1]  # without the durations
    made.joint.load_state_dict(joint)
    made.preprocessor.featurizer.dither = 0.0
    return made


def trained(tokenizer_folder: Path, kind: kinds.Kind = "unified") -> Any:
    """Builds the model with its own predictor and joint. kind: as ``build``."""
    from safetensors.torch import load_file

    made, tensors = build(tokenizer_folder, kind), load_file(TRAINED)
    for part in ("decoder", "joint"):
        of_part = {key.removeprefix(f"{part}."): value.float() for key, value in tensors.items() if key.startswith(f"{part}.")}
        getattr(made, part).load_state_dict(of_part)
    return made


def write(path: Path, kind: kinds.Kind = "unified") -> None:
    """Writes the checkpoint as a .nemo file. kind: as ``build``."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(trained(Path(folder), kind), path)


@torch.no_grad()
def encoded(asr: Any, clips: list[data.Clip], seed: int) -> list[tuple]:
    """Runs the encoder on every clip: (frames bf16 [B, d, T], n_frames i64 [B], targets i64 [B, U], n_labels i64 [B]) a batch."""
    batches = []
    for number, batch in enumerate(data.batches(clips, BATCH_SECONDS, CHAIN_SHARE, seed)):
        asr.encoder.set_default_att_context_size(CONTEXTS[number % len(CONTEXTS)])
        audio, n_samples, targets, n_labels, _, _ = data.collate(batch)
        frames, n_frames = prompt.encode(asr, audio, n_samples)
        batches.append((frames.bfloat16(), n_frames, targets, n_labels))
    asr.encoder.set_default_att_context_size(CONTEXTS[0])
    return batches


def fit(asr: Any, batches: list[tuple], epochs: int, seed: int) -> None:
    """Trains predictor and joint; prints the loss of each epoch in nats a token."""
    rng, blank = random.Random(f"unified {seed}"), len(asr.tokenizer.vocab)
    asr.joint.log_softmax = False  # the loss normalises
    parameters = [*asr.decoder.parameters(), *asr.joint.parameters()]
    optimizer, n_steps = torch.optim.Adam(parameters, betas=(0.9, 0.98)), 0
    for epoch in range(epochs):
        rng.shuffle(batches)
        losses = []
        for frames, n_frames, targets, n_labels in batches:
            share = min(1, (n_steps + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * n_steps / epochs / len(batches)))
            optimizer.param_groups[0]["lr"] = RATE * share
            predictions, _, _ = asr.decoder(targets=targets, target_length=n_labels)
            logits = asr.joint(encoder_outputs=frames.float(), decoder_outputs=predictions)
            found = loss.transducer_loss(logits, targets, n_frames, n_labels, blank).sum() / n_labels.sum().clamp(min=1)
            optimizer.zero_grad()
            found.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            losses.append(found.item())
            n_steps += 1
        print(f"epoch {epoch}: {sum(losses) / len(losses):.3f} nats a token, {n_steps} steps", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a checkpoint of parakeet-unified's structure.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--offline", action="store_true", help="of full context alone, parakeet-rnnt's kind")
    parser.add_argument("--train", type=Path, nargs="+", default=[], metavar="CORPUS", help="manifests made by reference.corpus")
    parser.add_argument("--rows", type=int, default=400, help="of each manifest")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.train:
        from safetensors.torch import save_file

        torch.manual_seed(args.seed)
        torch.set_flush_denormal(True)  # digital silence makes denormals, which are slow
        with tempfile.TemporaryDirectory() as folder:
            asr = build(Path(folder))
            rows = [row for path in args.train for row in data.synthetic_rows(path, as_written=True)[: args.rows]]
            batches = encoded(asr, data.load(rows, asr.tokenizer.text_to_ids, recorded=False), args.seed)
            print(f"{len(batches)} batches", flush=True)
            fit(asr, batches, args.epochs, args.seed)
        tensors = asr.state_dict().items()
        save_file({key: value.half().contiguous() for key, value in tensors if key.startswith(("decoder.", "joint."))}, TRAINED)
    write(args.out, "rnnt" if args.offline else "unified")


if __name__ == "__main__":
    main()
