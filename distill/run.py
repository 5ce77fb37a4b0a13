"""Training: the student's frames and token posteriors towards the teacher's, step by step, kept on disk and taken up again."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nemoport.distill.batches import Batch, Batches
from nemoport.distill.full_pass import FullPassEncoder
from nemoport.distill.low_bits import LowBitMatMul
from nemoport.distill.posteriors import divergence, greedy_path
from nemoport.distill.settings import Settings
from nemoport.distill.start import Start, costly_groups, frames_of, group_of, linear_layers, noise, replace_layers, starts
from nemoport.errors import OutputError
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.decoder import DecoderJoint
from nemoport.export.heads import head_graph
from nemoport.export.shared import graph_weights
from nemoport.export.weight_errors import explain_weight_errors
from nemoport.files import digest_json
from nemoport.progress import Progress, Step
from nemoport.quantize.student import Student, write_student
from nemoport.speech.corpus import Corpus

STUDENT, STATE, LOG = "student.npz", "state.pt", "steps.jsonl"
START_BATCHES = 8  # that error feedback is computed on
SENSITIVITY_BATCHES = 2
SAVE_S = 300.0  # between two states on disk
SLOWER = 0.02  # scales and norms move by this share of the rate, of their own size


class Distillation:
    """A distillation in a folder: frames of the audio, the state of training, and the student as it is.

    checkpoint: of a cache-aware model; corpus: audio, at the model's rate; device: of torch. Raises CheckpointError, CorpusError,
    AudioError, and OutputError where the folder holds another run's.
    """

    def __init__(self, checkpoint: Checkpoint, corpus: Corpus, folder: Path, settings: Settings, device: str, progress: Progress):
        self.checkpoint, self.folder, self.settings, self.progress = checkpoint, folder, settings, progress
        self.device = torch.device(device)
        folder.mkdir(parents=True, exist_ok=True)
        self.corpus_digest = corpus.digest
        inputs = {**asdict(settings), "checkpoint": checkpoint.sha256, "corpus": self.corpus_digest}
        inputs.pop("steps")  # a run may be given more of them
        self.inputs = digest_json(inputs)
        self.batches = Batches(corpus, checkpoint.spec, folder, settings.seed, settings.noisy_share, progress)
        torch.manual_seed(settings.seed)
        self.teacher, self.head = self._models()
        self.student, _ = self._models()
        self.step, self.bits = 0, dict[str, int]()

    def run(self, resume: bool) -> Path:
        """Trains to the last step and returns the student's file. resume: go on where an earlier run ended."""
        optimizer = self._resume() if resume else self._begin()
        try:
            self._steps(optimizer)
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM: nothing of what was trained is lost
            self._save(optimizer)
            raise
        return self._save(optimizer)

    def _steps(self, optimizer: torch.optim.Optimizer) -> None:
        shown = saved = time.monotonic()
        while self.step < self.settings.steps:
            losses = self._train(optimizer)
            self.step += 1
            now = time.monotonic()
            if now - shown > 10 or self.step == self.settings.steps:
                shown = now
                with open(self.folder / LOG, "a") as log:
                    log.write(json.dumps({"step": self.step, **losses}) + "\n")
                self.progress(Step("distilling", self.step, self.settings.steps, "steps"))
            if now - saved > SAVE_S:
                saved = now
                self._save(optimizer)

    def _models(self) -> tuple[FullPassEncoder, nn.Module]:
        spec = self.checkpoint.spec
        weights = graph_weights(self.checkpoint)
        with explain_weight_errors(self.checkpoint), torch.no_grad():
            encoder = FullPassEncoder(weights, spec.require_streaming(), *([spec.prompt] if spec.prompt else []))
            head = head_graph(spec.head).build(weights, spec.decoding)
        for module in (encoder, head):
            module.to(self.device).requires_grad_(False)
        return encoder, head

    def _batch(self, step: int) -> Batch:
        return self.batches.at(step, self.settings.batch_seconds, self.settings.row_seconds)

    def _begin(self) -> torch.optim.Optimizer:
        settings = self.settings
        if (self.folder / STATE).exists():
            raise OutputError(
                f"{self.folder} holds a distillation already.",
                expected="no state of one",
                found=STATE,
                todo="go on with it by --resume, or choose another folder",
            )
        each = (settings.bits, *([settings.high_bits] if settings.high_share else []))
        # So far on, no batch is trained on.
        made = dict(starts(self.teacher, (self._batch(10**9 + i) for i in range(START_BATCHES)), each, settings, self.progress))
        high: set[str] = set()
        if settings.high_share:
            batches = [self._batch(10**9 + i) for i in range(SENSITIVITY_BATCHES)]
            high, noises = costly_groups(self.teacher, made, batches, settings, self.progress)
            self.progress(f"in {settings.high_bits} bits: {', '.join(sorted(high))}")
            (self.folder / "sensitivity.json").write_text(json.dumps({"noise": noises, "high": sorted(high)}, indent=1))
        self.bits = {name: settings.high_bits if group_of(name) in high else settings.bits for name in made}
        replace_layers(self.student, {name: one[self.bits[name]] for name, one in made.items()}, self.bits, settings)
        optimizer = self._optimizer()
        self._save(optimizer)
        return optimizer

    def _resume(self) -> torch.optim.Optimizer:
        path = self.folder / STATE
        if not path.is_file():
            raise OutputError(
                f"There is nothing to go on with in {self.folder}.",
                expected=STATE,
                found="no such file",
                todo="leave --resume out",
            )
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["inputs"] != self.inputs:
            raise OutputError(
                f"{self.folder} holds another distillation.",
                expected="the same checkpoint, audio and settings, but for the number of steps",
                found="other ones",
                todo="choose another folder, or give what that run was given",
            )
        self.step, self.bits = state["step"], state["bits"]
        empty = {
            name: Start(
                torch.empty_like(layer.weight), torch.empty(-(-layer.weight.size(0) // self.settings.block), layer.weight.size(1))
            )
            for name, layer in linear_layers(self.student).items()
        }
        replace_layers(self.student, empty, self.bits, self.settings)
        self.student.load_state_dict(state["student"])
        optimizer = self._optimizer()
        optimizer.load_state_dict(state["optimizer"])
        return optimizer

    def _optimizer(self) -> torch.optim.Optimizer:
        """Each tensor learns at a rate in proportion to its own size, which of a weight is one step of its integers."""
        groups = []
        for part in self.student.layers.modules():
            if isinstance(part, LowBitMatMul):
                step = float(part.scales.detach().abs().mean())
                moved = step / math.sqrt(part.weight.size(0))  # so that what many inputs add up to moves alike at every width
                groups += [{"params": [part.weight], "size": moved}, {"params": [part.scales], "size": SLOWER * step}]
            elif isinstance(part, nn.LayerNorm):
                groups += [{"params": [one], "size": SLOWER * max(float(one.abs().mean()), 0.01)} for one in part.parameters()]
        for group in groups:
            group["params"][0].requires_grad_(True)
        return torch.optim.Adam(groups, betas=(0.9, 0.98))

    def _train(self, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        settings = self.settings
        batch = self._batch(self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.bfloat16):
            with torch.no_grad():
                right = [one.float() for one in frames_of(self.teacher, batch, every_layer=True)]
            own = [one.float() for one in frames_of(self.student, batch, every_layer=True)]
        error = noise(right[-1], own[-1])
        layers = torch.stack([noise(one, other) for one, other in zip(right[:-1], own[:-1], strict=True)]).mean()
        tokens = self._tokens(right[-1], own[-1])
        figures = {name: float(one.detach()) for name, one in (("frames", error), ("layers", layers), ("tokens", tokens))}
        loss = error + settings.layer_weight * layers + settings.token_weight * tokens
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        rate = (
            settings.rate
            * min(1.0, (self.step + 1) / settings.warm_up)
            * 0.5
            * (1 + math.cos(math.pi * self.step / settings.steps))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * group["size"]
        optimizer.step()
        return figures

    def _tokens(self, teacher: Tensor, student: Tensor) -> Tensor:
        """How far the student's token posteriors are from the teacher's, in nats a place."""
        if not self.settings.token_weight:
            return teacher.new_zeros(())
        if not isinstance(self.head, DecoderJoint):
            target, own = (self.head(frames.transpose(1, 2)) for frames in (teacher, student))
            return nn.functional.kl_div(own.flatten(0, 1), target.flatten(0, 1), log_target=True, reduction="batchmean")
        with torch.no_grad():
            encoded = self.head.enc(teacher)
            lengths = torch.full((len(encoded),), encoded.size(1), device=encoded.device)
            path = greedy_path(self.head, self.checkpoint.spec.decoding, encoded, lengths)
        return divergence(self.head, path, encoded, self.head.enc(student))

    def _save(self, optimizer: torch.optim.Optimizer) -> Path:
        """Writes the state of training and the student, each whole or not at all."""
        state: dict[str, Any] = {
            "inputs": self.inputs,
            "step": self.step,
            "bits": self.bits,
            "student": self.student.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        partial = self.folder / f"{STATE}.partial"
        torch.save(state, partial)
        partial.replace(self.folder / STATE)
        write_student(self.folder / STUDENT, self._exported())
        return self.folder / STUDENT

    def _exported(self) -> Student:
        layers, norms = {}, {}
        for name, part in self.student.named_modules():
            if isinstance(part, LowBitMatMul):
                layers[name] = (part.integers().cpu().numpy(), part.scales.detach().cpu().numpy(), part.bits)
            elif isinstance(part, nn.LayerNorm):
                norms[name] = tuple(one.detach().cpu().numpy() for one in (part.weight, part.bias))
        return Student(self.checkpoint.sha256, self.corpus_digest, self.step, self.settings.block, layers, norms)
