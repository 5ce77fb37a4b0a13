"""Trains a checkpoint further where there is no NeMo, on a GPU or on the CPU: what ``gpu_train.sh`` runs over there.

``python -m nemoport.reference.further WORK --out OUT --minutes 8 [--steps N] [--device cuda]``

WORK holds what ``training_pack`` packed: start.pt and speech. The learning rate falls along a cosine to zero at --minutes of
training or at --steps, whichever comes first. Every batch follows from the seed and the number of the step, and so does all else
that is drawn: a run that was stopped goes on in WORK, and with --steps alone, on a CPU, it ends in the weights of one that was
not stopped. OUT gets the weights, or of a run that is stopped its state, in parts that any transfer takes; and steps.jsonl.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from nemoport.spec import ModelSpec

from . import data
from .batches import STOPPING, Batches, lists_of, read_clips
from .network import Network

START, STATE, WEIGHTS, LOG = "start.pt", "state.pt", "weights.pt", "steps.jsonl"
PART_BYTES = 15 << 20
SHOWN_S = 10.0  # between two lines of the log
WARM_UP_STEPS = 200


class Further:
    """A training in a folder, as ``main`` has its options: what is learned, and where it stands."""

    def __init__(self, work: Path, out: Path, args: argparse.Namespace):
        self.work, self.out, self.args = work, out, args
        self.device = torch.device(args.device)
        self.start = torch.load(work / START, weights_only=True)
        torch.manual_seed(args.seed)
        self.network = Network(self.start["tensors"], ModelSpec.from_dict(json.loads(self.start["spec"])))
        self.network.encoder.pre_encode.requires_grad_(not args.freeze_subsampling)
        self.network.to(self.device)
        learned = [one for one in self.network.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=args.rate, betas=(0.9, 0.98), weight_decay=1e-3)
        self.step, self.elapsed_s, self.stopped = 0, 0.0, False
        speech = b"".join(part.read_bytes() for part in lists_of(work))
        self.inputs = [self.start["sha256"], hashlib.sha256(speech).hexdigest(), args.seed, args.batch_seconds, args.rate]
        self.inputs += [args.ctc_weight, args.freeze_subsampling]
        if (work / STATE).is_file():
            state = torch.load(work / STATE, map_location=self.device, weights_only=True)
            if state["inputs"] != self.inputs:
                raise SystemExit(
                    f"{work / STATE} is of another checkpoint, speech, seed or options. Remove it, or give what it had."
                )
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.elapsed_s = state["step"], state["elapsed_s"]

    def done(self) -> float:
        """How much of the run is over, 0 to 1 or more."""
        by_steps = self.step / self.args.steps if self.args.steps else 0.0
        return max(by_steps, self.elapsed_s / 60 / self.args.minutes if self.args.minutes else 0.0)

    def train(self) -> None:
        """Goes on to the end; the weights are then in OUT. A run that is stopped leaves its state in WORK and OUT."""
        self.out.mkdir(parents=True, exist_ok=True)
        batches = Batches(read_clips(self.work), self.args.batch_seconds, self.args.seed)
        seconds = sum(len(clip.samples) for clip in batches.clips) / data.SAMPLE_RATE_HZ
        print(f"{len(batches.clips)} clips, {seconds / 3600:.2f} h; from step {self.step} on {self.device}", flush=True)
        if not batches.clips:
            raise SystemExit(f"there is no speech in {self.work}; unpack a part that has some")
        last_s = shown_s = saved_s = time.monotonic()
        for batch in batches.ahead(self.step, self.args.processes):
            if self.stopped or (done := self.done()) >= 1:
                break
            losses = self._learn(batch, done)
            now_s = time.monotonic()
            self.elapsed_s, last_s = self.elapsed_s + now_s - last_s, now_s
            self.step += 1
            if now_s - shown_s > SHOWN_S or self.step == 1:
                shown_s = now_s
                self._show(dict(step=self.step, seconds=round(self.elapsed_s, 1), done=round(done, 4)) | losses)
            if now_s - saved_s > 60 * self.args.save_minutes:
                saved_s = now_s
                self._save()
        if self.stopped and self.done() < 1:
            write_parts(self._save(), self.out)
            raise SystemExit(f"stopped at step {self.step}; the same command goes on")
        weights = self.work / WEIGHTS
        torch.save({"start": self.start["sha256"], "step": self.step, "tensors": self.network.tensors()}, weights)
        write_parts(weights, self.out)
        for old in (self.work / STATE, *self.out.glob(f"{STATE}.[0-9][0-9]")):
            old.unlink(missing_ok=True)
        print(f"{self.step} steps in {self.elapsed_s:.0f} s", flush=True)

    def stop(self, *_: Any) -> None:
        """Ends the run behind the step that it is in: a handler of signals."""
        self.stopped = True

    def _show(self, row: dict) -> None:
        print(json.dumps(row), flush=True)
        with open(self.out / LOG, "a") as log:
            log.write(json.dumps(row) + "\n")

    def _learn(self, batch: tuple, done: float) -> dict[str, float]:
        """One step. A batch whose gradient is not finite changes nothing."""
        audio, lengths, tokens, drawn = batch
        args, lookaheads = self.args, self.network.spec.require_streaming().lookaheads
        torch.manual_seed(args.seed * 1_000_003 + self.step)  # the predictor's dropout
        labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(one, dtype=torch.long) for one in tokens], batch_first=True)
        transducer, ctc = self.network.losses(
            torch.from_numpy(audio).to(self.device).float() / 32767,
            torch.tensor(lengths).to(self.device),
            labels.to(self.device),
            torch.tensor([len(one) for one in tokens]).to(self.device),
            lookaheads[int(drawn * len(lookaheads))],
            args.bfloat16,
        )
        self.optimizer.zero_grad(set_to_none=True)
        ((1 - args.ctc_weight) * transducer + args.ctc_weight * ctc).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], 1.0)
        rate = args.rate * min(1, (self.step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if torch.isfinite(norm):
            self.optimizer.step()
        return dict(transducer=round(float(transducer.detach()), 4), ctc=round(float(ctc.detach()), 4), rate=round(rate, 7))

    def _save(self) -> Path:
        """Writes the state, whole or not at all."""
        state: dict[str, Any] = dict(inputs=self.inputs, step=self.step, elapsed_s=self.elapsed_s)
        state |= dict(network=self.network.state_dict(), optimizer=self.optimizer.state_dict())
        partial = self.work / f"{STATE}.partial"
        torch.save(state, partial)
        return partial.replace(self.work / STATE)


def write_parts(path: Path, out: Path) -> None:
    """Writes a file into ``out`` in parts, path.name.00 and so on, in place of earlier ones."""
    for old in out.glob(f"{path.name}.[0-9][0-9]"):
        old.unlink()
    content = path.read_bytes()
    for number in range(-(-len(content) // PART_BYTES)):
        part = content[number * PART_BYTES : (number + 1) * PART_BYTES]
        (out / f"{path.name}.{number:02}").write_bytes(part)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains a checkpoint further without NeMo.")
    parser.add_argument("work", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=0.0, help="of training, loading aside (0: --steps alone end it)")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-seconds", type=float, default=480.0)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--ctc-weight", type=float, default=0.1)
    parser.add_argument("--freeze-subsampling", action="store_true", help="a fifth faster on a CPU")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16 in the encoder")
    parser.add_argument("--processes", type=int, default=max(0, (os.cpu_count() or 1) - 2), help="that make batches")
    parser.add_argument("--save-minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not args.minutes and not args.steps:
        parser.error("name --minutes, --steps or both")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.set_flush_denormal(True)  # digital silence makes denormals, which are slow
    training = Further(args.work, args.out, args)
    for one in STOPPING:
        signal.signal(one, training.stop)
    training.train()


if __name__ == "__main__":
    main()
