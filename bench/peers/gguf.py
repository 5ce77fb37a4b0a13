"""CrispASR and transcribe.cpp beside NeMo, on the committed checkpoints and speech: every text of theirs that differs
from NeMo's, and why; the table of docs/kinds/table.md.

    python bench/peers/gguf.py --work build/peers-gguf --install [--every 10] [--run multilingual]

Both read GGUF files that are written here (gguf_layouts.py), and run in an environment of their own, which --install makes
(environments.py). A text is explained by the first experiment in NeMo that gives it:

- frame: the encoder is told one mel frame more. NeMo's features end in a frame of zeros, which counts as valid in NeMo's
  streaming buffer, and not in its whole recordings;
- heard: as frame, and that frame is what sounds there;
- stream: NeMo's own streaming, where the peer streams;
- start: of a long recording, which CrispASR cuts at pauses, the first seconds alone give NeMo's text;
- tie: noise of one to three thousandths on NeMo's encoder frames gives it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environments
import gguf_file
import gguf_layouts
import numpy as np

from nemoport.export.checkpoint import Checkpoint, read_checkpoint
from nemoport.reference import ctc, random_checkpoint
from nemoport.reference.presets import PRESETS
from nemoport.score import count_all, wer_percent
from nemoport.spec import CTC
from nemoport.speech.corpus import Utterance, read_corpus
from nemoport.tokens import UNKNOWN_TEXT
from nemoport.validate import nemo, nemo_runs

WORKER = Path(__file__).with_name("gguf_worker.py")
REFERENCE = Path(__file__).resolve().parents[2] / "reference"
CUT_SECONDS, START_SECONDS = 25.0, 15.0  # what CrispASR does not cut; what is compared of what it cuts
RANDOM_SECONDS = 20.0
FEED_SAMPLES = 8000
NOISES, SEEDS = (1e-3, 3e-3), 16  # of the frames' deviation; products in f16 alone are off by up to 5e-4, layer after layer
CONTEXT_PRESET = "CRISPASR_NEMOTRON_CONTEXT_PRESET"  # 3 is the lookahead 13, and 56 frames to the left, whatever the file says
SAME, REASONS, UNEXPLAINED = "same", ("frame", "heard", "stream", "start", "tie"), "unexplained"
Clip = tuple[Utterance, np.ndarray]  # and its samples


@dataclass(frozen=True)
class Run:
    """checkpoint: a committed one, a preset of nemoport.reference.presets, or a variant of nemoport.reference.ctc; corpus: of the
    committed speech. context: left context and lookahead, None for an offline model; streams: the audio is fed in pieces; head:
    of a hybrid, if not NeMo's."""

    checkpoint: str
    corpus: str
    peer: str
    half: bool = False
    context: tuple[int, int] | None = None
    streams: bool = False
    head: str = ""

    def __str__(self) -> str:
        context = f", lookahead {self.context[1]}" if self.context else ""
        head = f", {self.head}" if self.head else ""
        return f"{self.peer} {'f16' if self.half else 'f32'}{head}{context}{', fed as a stream' if self.streams else ''}"


RUNS = (
    Run("streaming-en", "eval", "crispasr", context=(56, 13)),
    Run("streaming-en", "eval", "crispasr", half=True, context=(56, 13)),
    Run("streaming-en", "eval", "transcribe-cpp", context=(70, 13)),
    *(Run("streaming-en", "eval", "transcribe-cpp", context=(70, right), streams=True) for right in (13, 6, 1, 0)),
    Run("streaming-multilingual", "eval-multi", "crispasr", context=(56, 13)),
    Run("streaming-multilingual", "eval-multi", "transcribe-cpp", context=(56, 13)),
    Run("offline-tdt", "eval-tdt", "crispasr"),
    Run("offline-tdt", "eval-tdt", "crispasr", half=True),
    Run("offline-tdt", "eval-tdt", "transcribe-cpp"),
    Run("hybrid-streaming", "eval", "transcribe-cpp", context=(70, 13)),
    Run("hybrid-streaming", "eval", "transcribe-cpp", context=(70, 13), head="ctc"),
    Run("ctc-streaming", "eval", "transcribe-cpp", context=(70, 13)),
    *(
        Run(name, "eval-tdt", peer, head=head)
        for name, head in (("hybrid-tdt", ""), ("hybrid-tdt", "ctc"), ("ctc-offline", ""))
        for peer in gguf_layouts.LAYOUTS
    ),
    *(
        Run(preset, "eval", peer, head=head)
        for preset, head in (
            ("tiny-rnnt", ""),
            ("tiny-tdt_ctc", ""),
            ("tiny-tdt_ctc", "ctc"),
            ("tiny-tdt_ctc-local", ""),
            ("tiny-ctc", ""),
            ("tiny-unified", ""),
        )
        for peer in gguf_layouts.LAYOUTS
    ),
    Run("tiny-eou", "eval", "transcribe-cpp", context=(70, 1), streams=True),
    Run("tiny-streaming-hybrid", "eval", "transcribe-cpp", context=(70, 13)),
    Run("tiny-streaming-hybrid", "eval", "transcribe-cpp", context=(70, 13), head="ctc"),
)


class Oracle:
    """NeMo on one checkpoint, as it is and changed as an experiment wants."""

    def __init__(self, checkpoint: Checkpoint, context: tuple[int, int] | None):
        self.model: Any = nemo.restore(checkpoint)
        self.spec, self.prompt, self.context = checkpoint.spec, checkpoint.spec.prompt, context

    def text(
        self,
        clip: Clip,
        more_frames: int = 0,
        heard: bool = False,
        samples: int | None = None,
        noise: tuple[float, int] | None = None,
    ) -> str:
        """more_frames: mel frames behind the end that count as valid; heard: the last mel frame is as it sounds, not zeros;
        samples: the first of the clip alone; noise: on the encoder's frames, and its seed."""
        import torch

        if heard:
            featurizer = self.model.preprocessor.featurizer
            counted = type(featurizer).get_seq_len
            featurizer.get_seq_len = lambda length: counted(featurizer, length) + 1
            try:
                return self.text(clip, samples=samples, noise=noise)
            finally:
                del featurizer.get_seq_len
        audio, generator = clip[1][:samples], torch.Generator()
        with nemo.exact(self.model):
            if self.context:
                self.model.encoder.set_default_att_context_size(list(self.context))
            mel, length = self.model.preprocessor(input_signal=torch.from_numpy(audio)[None], length=torch.tensor([len(audio)]))
            frames, n_frames = self.model.encoder(audio_signal=mel, length=length + more_frames)
            if self.prompt:
                frames = self._prompted(frames, clip[0].prompt_language)
            if noise:
                generator.manual_seed(noise[1])
                frames = frames + noise[0] * frames.std() * torch.randn(frames.shape, generator=generator)
            decoding = self.model.decoding
            if self.spec.head == CTC:
                scores = self.model.decoder(encoder_output=frames)
                return plain(decoding.ctc_decoder_predictions_tensor(scores, n_frames, return_hypotheses=True)[0].text)
            return plain(decoding.rnnt_decoder_predictions_tensor(frames, n_frames, return_hypotheses=True)[0].text)

    def _prompted(self, frames: Any, language: str) -> Any:
        import torch

        slot = torch.tensor(self.prompt.languages[language])
        one_hot = torch.nn.functional.one_hot(slot, self.prompt.slots).float().expand(frames.shape[2], -1)
        return self.model.prompt_kernel(torch.cat([frames[0].T, one_hot], 1)).T[None]

    def streamed(self, clip: Clip) -> str:
        with nemo.exact(self.model):
            return plain(nemo_runs.stream(self.model, [clip[1]], self.context[1])[0].text)


def peer_texts(run: Run, clips: list[Clip], checkpoint: Checkpoint, work: Path) -> list[str]:
    """The peer's text of each clip."""
    model, task = work / f"{run.checkpoint}-{run.peer}-{run.half}.gguf", work / "task.json"
    gguf_file.write(model, *gguf_layouts.LAYOUTS[run.peer](checkpoint, run.half))
    paths = [work / f"{i}.npy" for i in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        np.save(path, clip[1])
    languages = [clip.prompt_language if checkpoint.spec.prompt else None for clip, _ in clips]
    right = run.context[1] if run.context and run.streams else None
    chunk = FEED_SAMPLES if run.streams else None
    rows = [[str(path), language] for path, language in zip(paths, languages, strict=True)]
    task.write_text(json.dumps({"peer": run.peer, "model": str(model), "clips": rows, "right": right, "chunk": chunk}))
    done = subprocess.run(
        [environments.python_of("ggml"), WORKER, task], env={**os.environ, CONTEXT_PRESET: "3"}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{run}: {done.stderr[-2000:]}")
    return [plain(row["text"]) for row in json.loads(done.stdout)]


def plain(text: str) -> str:
    """A text without what each writes in a way of its own: unknown tokens, spaces in a row, and before punctuation."""
    known = re.sub(f" ?{UNKNOWN_TEXT.strip()} ?", "", text)
    return re.sub(r" (?=[^\w\s<])", "", " ".join(known.split()))


def explanation(run: Run, oracle: Oracle, clip: Clip, text: str, started: Callable[[int], str]) -> str:
    """Why a peer's text of a clip is what it is. started: the peer's text of the first so many samples of the clip."""
    if oracle.text(clip) == text:
        return SAME
    if oracle.text(clip, more_frames=1) == text:
        return "frame"
    if oracle.text(clip, heard=True) == text:
        return "heard"
    if run.streams and oracle.streamed(clip) == text:
        return "stream"
    start = int(START_SECONDS * clip[0].sample_rate_hz)
    if (
        run.peer == "crispasr"
        and clip[0].seconds > CUT_SECONDS
        and started(start) == oracle.text(clip, more_frames=1, samples=start)
    ):
        return "start"
    for noise in itertools.product(NOISES, range(SEEDS)):
        ends: tuple[dict[str, Any], ...] = ({}, {"more_frames": 1}, {"heard": True})
        if any(oracle.text(clip, noise=noise, **end) == text for end in ends):
            return "tie"
    return UNEXPLAINED


def checkpoint_at(name: str, work: Path) -> Path:
    """The committed checkpoint, or the one that is made of a preset or of a trained CTC head."""
    committed, made = REFERENCE / "checkpoints" / f"{name}.nemo", work / f"{name}.nemo"
    if committed.exists():
        return committed
    if not made.exists():
        random_checkpoint.write(name, made) if name in PRESETS else ctc.write(name, made)
    return made


def compare(run: Run, work: Path, every: int = 1) -> dict[str, list[tuple[str, str, str]]]:
    """Reason -> (id, NeMo's text, the peer's) of one in so many clips. Prints a row of the table, and what is unexplained."""
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = read_checkpoint(str(checkpoint_at(run.checkpoint, work)), run.head)
    corpus = read_corpus(REFERENCE / "audio" / f"{run.corpus}.jsonl", checkpoint.spec.frontend.sample_rate_hz)
    # A random model is near a tie every few seconds: of a minute, no single experiment gives all.
    longest = RANDOM_SECONDS if run.checkpoint in PRESETS else float("inf")
    chosen = [clip for clip in corpus.utterances if clip.seconds <= longest]
    clips = [(clip, clip.samples()) for clip in chosen[::every]]
    oracle = Oracle(checkpoint, run.context)
    texts = peer_texts(run, clips, checkpoint, work)
    found: dict[str, list[tuple[str, str, str]]] = {}
    nemo_texts = [oracle.text(clip) for clip in clips]
    for clip, text, wanted in zip(clips, texts, nemo_texts, strict=True):

        def started(samples: int, clip: Clip = clip) -> str:
            return peer_texts(run, [(clip[0], clip[1][:samples])], checkpoint, work)[0]

        reason = SAME if text == wanted else explanation(run, oracle, clip, text, started)
        found.setdefault(reason, []).append((clip[0].id, wanted, text))
    references, languages = [clip.text for clip, _ in clips], [clip.language for clip, _ in clips]
    rates = ["-", "-"]  # a random model's texts mean nothing
    if run.checkpoint not in PRESETS:
        rates = [f"{wer_percent(count_all(references, some, languages)):.2f}" for some in (nemo_texts, texts)]
    counts = [str(len(found.get(reason, []))) for reason in (SAME, *REASONS, UNEXPLAINED)]
    print(f"| {' | '.join([run.checkpoint, str(run), str(len(clips)), *rates, *counts])} |", flush=True)
    for id, wanted, text in found.get(UNEXPLAINED, []):
        print(f"{id}\n  NeMo: {wanted}\n  {run.peer}: {text}", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="compare one in so many utterances")
    parser.add_argument("--install", action="store_true", help="make the environment, where it is absent")
    parser.add_argument("--run", action="append", help="part of the names of runs; repeat for several")
    options = parser.parse_args()
    if options.install:
        environments.make("ggml")
    if not environments.is_made("ggml"):
        sys.exit(f"no environment with {' and '.join(environments.PACKAGES['ggml'])}: pass --install")
    columns = ("checkpoint", "implementation", "utterances", "NeMo's WER", "its WER", SAME, *REASONS, UNEXPLAINED)
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    chosen = [run for run in RUNS if not options.run or any(part in f"{run.checkpoint} {run}" for part in options.run)]
    unexplained = sum(len(compare(run, options.work, options.every).get(UNEXPLAINED, [])) for run in chosen)
    sys.exit(unexplained > 0)


if __name__ == "__main__":
    main()
