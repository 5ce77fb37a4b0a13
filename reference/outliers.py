"""Turns a checkpoint into one with outlier channels that computes the same, bit for bit.

``python -m nemoport.reference.outliers CHECKPOINT.nemo --out HARD.nemo [--seed 0] [--strength 32] [--channels 0.02]``

Large trained transformers have a few channels whose activations are tens of times larger than the others', behind their
LayerNorms above all, and 8 bits for a whole tensor then leave the others almost none (arXiv:2211.10438, section 3).
Small checkpoints have no such channels. Here a few channels of every LayerNorm that only linear layers read, and of
every attention value, are multiplied by a power of two, and the weights that read them divided by it: the function is
the same and no float is rounded, but what is quantized is as hard as in a large model.
"""

from __future__ import annotations

import argparse
import io
import re
import tarfile
from pathlib import Path

from nemoport.export.archive import opened

WEIGHTS = "model_weights.ckpt"
# The layers whose output channels are scaled up, and those that take them as input; below encoder.layers.N.
READERS = {
    "norm_feed_forward1": ("feed_forward1.linear1",),
    "norm_self_att": ("self_attn.linear_q", "self_attn.linear_k", "self_attn.linear_v"),
    "norm_conv": ("conv.pointwise_conv1",),
    "norm_feed_forward2": ("feed_forward2.linear1",),
    "self_attn.linear_v": ("self_attn.linear_out",),
}


def harden(weights: dict, seed: int, strength: int, share: float) -> int:
    """Scales channels of a FastConformer encoder's tensors in place; returns how many were scaled.

    A scaled channel is ``strength`` (a power of two) times as large as it was, or half or twice that. The same channels
    of all LayerNorms are taken, as in large models, and others of each attention value. Raises ValueError for a
    strength that would round, or a checkpoint without such layers.
    """
    import torch

    if strength < 2 or strength & (strength - 1):
        raise ValueError(f"strength is {strength}; expected a power of two of at least 2, so that nothing is rounded")
    layers = sorted({m[0] for name in weights if (m := re.match(r"encoder\.layers\.\d+\.", name))})
    if not layers:
        raise ValueError("the checkpoint has no encoder.layers; expected a FastConformer")
    width = len(weights[f"{layers[0]}norm_conv.weight"])
    generator = torch.Generator().manual_seed(seed)
    count = max(1, round(share * width))
    persistent = torch.randperm(width, generator=generator)[:count]
    scaled = 0
    for layer in layers:
        for source, readers in READERS.items():
            channels = persistent if source.startswith("norm") else torch.randperm(width, generator=generator)[:count]
            factor = torch.ones(width)
            factor[channels] = strength * 2.0 ** torch.randint(-1, 2, (count,), generator=generator)
            scaled += count
            for name in (f"{layer}{source}.weight", f"{layer}{source}.bias"):
                if name in weights:  # gain of a norm, or rows of a linear layer
                    weights[name] *= factor.reshape(-1, *[1] * (weights[name].dim() - 1))
            for reader in readers:
                weight = weights[f"{layer}{reader}.weight"]
                weight /= factor.reshape(1, -1, *[1] * (weight.dim() - 2))
    return scaled


def rewrite(source: Path, target: Path, seed: int, strength: int, share: float) -> int:
    """Writes a checkpoint ``target``: ``source`` with the weights that ``harden`` makes, all other members as they are."""
    import torch

    with opened(source) as archive, tarfile.open(source) as tar:
        weights = torch.load(archive.member(WEIGHTS), map_location="cpu", weights_only=True)
        scaled = harden(weights, seed, strength, share)
        partial = target.with_name(f".{target.name}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(partial, "w") as out:
            for entry in tar.getmembers():
                content = tar.extractfile(entry) if entry.isfile() else None
                if entry.name.removeprefix("./") == WEIGHTS:
                    content = io.BytesIO()
                    torch.save(weights, content)
                    entry.size = content.tell()
                    content.seek(0)
                out.addfile(entry, content)
    partial.replace(target)
    return scaled


def main() -> None:
    parser = argparse.ArgumentParser(description="Gives a checkpoint outlier channels without changing what it computes.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strength", type=int, default=32, help="a power of two; times the channel's size")
    parser.add_argument("--channels", type=float, default=0.02, help="share of the channels")
    args = parser.parse_args()
    print(f"{args.out}: {rewrite(args.checkpoint, args.out, args.seed, args.strength, args.channels)} channels scaled")


if __name__ == "__main__":
    main()
