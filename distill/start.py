"""The student as training begins: which groups stay in more bits, and weights that are rounded with error feedback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nemoport.distill.batches import Batch
from nemoport.distill.full_pass import FullPassEncoder
from nemoport.distill.low_bits import LowBitMatMul
from nemoport.distill.settings import Settings
from nemoport.export.layers import MatMul
from nemoport.progress import Progress, Step
from nemoport.quantize.error_feedback import compensated, inverse_factor


@dataclass(frozen=True)
class Start:
    """weights: f32 [in, out], whose nearest integers are those of error feedback; scales: f32 [blocks, out]."""

    weights: Tensor
    scales: Tensor


def linear_layers(encoder: FullPassEncoder) -> dict[str, MatMul]:
    """The linear layers that are rounded, by name: those that every variant's integers are of (quantize/graph.py)."""
    return {f"layers.{name}": part for name, part in encoder.layers.named_modules() if isinstance(part, MatMul)}


def group_of(name: str) -> str:
    """The module of a layer that a linear layer is of, such as layers.3.feed_forward1."""
    return ".".join(name.split(".")[:3])


def starts(
    encoder: FullPassEncoder, batches: Iterable[Batch], bits: Iterable[int], settings: Settings, progress: Progress
) -> Iterator[tuple[str, dict[int, Start]]]:
    """Rounds each linear layer with error feedback on the activations of `batches`, in each of `bits`. Yields name -> starts."""
    layers = linear_layers(encoder)
    grams = _grams(encoder, layers, batches)
    for number, (name, layer) in enumerate(layers.items()):
        progress(Step("error feedback", number, len(layers), "matrices"))
        weight = layer.weight.detach().cpu().numpy()
        upper = inverse_factor(grams.pop(name).cpu().numpy(), settings.damping)
        made = {}
        for count in bits:
            blocks, before = compensated(weight, upper, count, settings.block)
            # Error feedback may carry a weight far outside of what its integers hold, where no gradient would reach it.
            steps = np.repeat(blocks.scales, settings.block, 0)[: len(weight)]
            near = np.clip(before / steps, blocks.values - 0.49, blocks.values + 0.49) * steps
            made[count] = Start(torch.from_numpy(near.astype(np.float32)), torch.from_numpy(blocks.scales))
        yield name, made
    progress(Step("error feedback", len(layers), len(layers), "matrices"))


@torch.no_grad()
def _grams(encoder: FullPassEncoder, layers: Mapping[str, MatMul], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """X^T X f32 [in, in] of the activations X that each linear layer reads."""
    grams = {name: torch.zeros(2 * [layer.weight.size(0)], device=layer.weight.device) for name, layer in layers.items()}

    def collect(name: str):
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2)
            grams[name].addmm_(rows.t(), rows)

        return hook

    hooks = [layer.register_forward_pre_hook(collect(name)) for name, layer in layers.items()]
    for batch in batches:
        frames_of(encoder, batch)
    for hook in hooks:
        hook.remove()
    return grams


def frames_of(encoder: FullPassEncoder, batch: Batch, every_layer: bool = False) -> list[Tensor]:
    """Runs a batch: the encoder's frames f32 [B, T', d], behind those of each layer if `every_layer`."""
    device = next(encoder.parameters()).device
    mel = torch.from_numpy(batch.mel).to(device)
    lengths = torch.full((len(mel),), mel.size(2), device=device)
    prompt = None if batch.prompts is None else torch.from_numpy(batch.prompts).to(device)
    kept: list[Tensor] = []
    hooks = []
    if every_layer:
        hooks = [layer.register_forward_hook(lambda _, __, made: kept.append(made[0])) for layer in encoder.layers]
    frames, _ = encoder(mel, lengths, batch.lookahead, prompt)
    for hook in hooks:
        hook.remove()
    return [*kept, frames]


def noise(teacher: Tensor, student: Tensor) -> Tensor:
    """Power of the student's error, relative to the power of the teacher's frames."""
    return torch.square(student - teacher).mean() / torch.square(teacher).mean()


@torch.no_grad()
def costly_groups(
    encoder: FullPassEncoder,
    made: Mapping[str, Mapping[int, Start]],
    batches: list[Batch],
    settings: Settings,
    progress: Progress,
) -> tuple[set[str], dict[str, float]]:
    """The groups that get `high_bits`: those that add most noise to the frames per weight when each alone is in `bits`, until
    their weights are `high_share` of all. Returns them, and the noise of each group."""
    layers = linear_layers(encoder)
    members: dict[str, list[str]] = {}
    for name in layers:
        members.setdefault(group_of(name), []).append(name)
    exact = [frames_of(encoder, batch)[-1] for batch in batches]
    noises, sizes = {}, {group: sum(layers[name].weight.numel() for name in names) for group, names in members.items()}
    for number, (group, names) in enumerate(members.items()):
        progress(Step("sensitivity", number, len(members), "groups"))
        own = {name: layers[name].weight.data for name in names}
        for name in names:
            start = made[name][settings.bits]
            rounded = LowBitMatMul(start.weights, start.scales, settings.bits, settings.block, None).rounded()
            layers[name].weight.data = rounded.detach().to(own[name])
        noises[group] = sum(
            float(noise(right, frames_of(encoder, batch)[-1])) for right, batch in zip(exact, batches, strict=True)
        ) / len(batches)
        for name in names:
            layers[name].weight.data = own[name]
    progress(Step("sensitivity", len(members), len(members), "groups"))
    chosen, room = set(), settings.high_share * sum(sizes.values())
    for group in sorted(noises, key=lambda one: (-noises[one] / sizes[one], one)):
        if sizes[group] <= room:
            chosen.add(group)
            room -= sizes[group]
    return chosen, noises


def replace_layers(encoder: FullPassEncoder, made: Mapping[str, Start], bits: Mapping[str, int], settings: Settings) -> None:
    """Puts LowBitMatMul in the place of each linear layer; made, bits: by its name."""
    for name, layer in linear_layers(encoder).items():
        place, _, last = name.rpartition(".")
        start = made[name]
        weight, scales = start.weights.to(layer.weight), start.scales.to(layer.weight)
        setattr(encoder.get_submodule(place), last, LowBitMatMul(weight, scales, bits[name], settings.block, layer.bias))
