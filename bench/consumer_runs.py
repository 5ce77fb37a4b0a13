"""Transcripts of our packages by the programs of other people: recordings in, texts, tokens and processor time out.

Each `Consumer` has a function that is given a `Case`. sherpa-onnx and onnx-asr are of this environment, the npm packages run in
Node (node_programs.py), onnxruntime-genai in an environment of its own (peers/genai.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import node_programs
import numpy as np
from node_programs import AbsentError, Transcripts

from nemoport.artifact import Artifact
from nemoport.cache_layout import NEMO, cache_layout_of
from nemoport.package.layouts import load_layout, transformers_js
from nemoport.package.layouts.onnx_asr import suffix_of
from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import Utterance

PEERS = Path(__file__).resolve().parent / "peers"


@dataclass(frozen=True)
class Case:
    """A variant of a build and recordings for it. packages: layout -> a package with it; clips: of node_programs; environments:
    where the consumers' are."""

    build: Path
    variant: str
    utterances: Sequence[Utterance]
    packages: Path
    clips: Sequence[dict[str, Any]]
    environments: Path

    @property
    def spec(self):
        return Artifact.open(self.build / self.variant).spec

    def package(self, layout: str) -> Path:
        """A package of the layout with this variant, made once."""
        folder = (self.packages / f"{layout}-{self.build.name}-{self.variant}").resolve()
        if not folder.exists():
            folder.mkdir(parents=True)
            load_layout(layout).lay_out(self.build, [self.variant], folder)
        return folder

    def node(self, program: str, **job: Any) -> Transcripts:
        """Raises AbsentError where the environment is not made."""
        folder = self.environments / "node"
        if not (folder / "node_modules").exists():
            raise AbsentError("no npm packages")
        return node_programs.run(folder, program, self.clips, **job)


def timed(transcribe: Callable[[Utterance], tuple[str, list[Any]]], utterances: Sequence[Utterance]) -> Transcripts:
    """Runs all recordings, the first one twice. transcribe: returns text and tokens, [] where there are none to be had."""
    transcribe(utterances[0])
    started, found = time.process_time(), {u.id: transcribe(u) for u in utterances}
    seconds = time.process_time() - started
    return Transcripts({i: text.strip() for i, (text, _) in found.items()}, {i: t for i, (_, t) in found.items() if t}, seconds)


def nemoport(case: Case) -> Transcripts:
    recognizer = Recognizer.open(case.build / case.variant, threads=1)

    def transcribe(utterance: Utterance) -> tuple[str, list[Any]]:
        found = next(recognizer.transcribe([utterance.samples()]))
        return found.text, list(found.tokens)

    return timed(transcribe, case.utterances)


def onnx_asr(case: Case, own_mel: bool) -> Transcripts:
    import onnx_asr as theirs
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    folder, quantization = case.package("onnx-asr"), suffix_of(case.variant).removeprefix(".") or None
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    model = theirs.load_model(kind, folder, quantization=quantization, sess_options=options)
    if not own_mel:
        given = {clip["id"]: _window(clip) for clip in case.clips}
        current: list[str] = []
        model.asr._preprocessor = lambda *audio: given[current[-1]]

    def transcribe(utterance: Utterance) -> tuple[str, list[Any]]:
        if not own_mel:
            current.append(utterance.id)
        return model.recognize(utterance.samples()), []

    return timed(transcribe, case.utterances)


def _window(clip: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    bands, (window,) = clip["mel"]["bands"], clip["mel"]["windows"]
    mel = np.fromfile(clip["mel"]["file"], "<f4").reshape(1, bands, window["size"])
    return mel, np.array([window["length"]])


def sherpa_onnx(case: Case, own_mel: bool) -> Transcripts:
    import sherpa_onnx as theirs

    folder, suffix, spec = case.package("sherpa-onnx"), suffix_of(case.variant), case.spec
    rules = json.loads((folder / "config.json").read_text())["sherpa_onnx"]
    lead, tail = (np.zeros(rules.get(name, 0), np.float32) for name in ("lead_samples", "tail_samples"))
    options = {"tokens": str(folder / "tokens.txt"), "num_threads": 1}
    parts = {part: str(folder / f"{part}{suffix}.onnx") for part in ("encoder", "decoder", "joiner")}
    if spec.streaming:
        recognizer = theirs.OnlineRecognizer.from_transducer(**parts, **options)
    elif spec.head == "ctc":
        path = str(folder / f"model{suffix}.onnx")
        recognizer = theirs.OfflineRecognizer.from_nemo_ctc(model=path, feature_dim=spec.frontend.n_mels, **options)
    else:
        recognizer = theirs.OfflineRecognizer.from_transducer(**parts, **options, model_type="nemo_transducer")

    def transcribe(utterance: Utterance) -> tuple[str, list[Any]]:
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, np.concatenate([lead, utterance.samples(), tail]))
        if not spec.streaming:
            recognizer.decode_stream(stream)
            return stream.result.text, []
        stream.input_finished()
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
        return recognizer.get_result(stream), []

    return timed(transcribe, case.utterances)


def sherpa_onnx_node(case: Case, own_mel: bool) -> Transcripts:
    spec, folder = case.spec, case.package("sherpa-onnx")
    sizes = {"head": spec.head, "streaming": bool(spec.streaming), "bands": spec.frontend.n_mels}
    return case.node("sherpa", folder=str(folder), suffix=suffix_of(case.variant), **sizes)


def onnxruntime_js(runtime: str) -> Callable[[Case, bool], Transcripts]:
    def transcribe(case: Case, own_mel: bool) -> Transcripts:
        places = {"folder": str(case.build.resolve()), "asr": str(node_programs.PAGE_MODULES)}
        return case.node("graphs", package=runtime, variant=case.variant, ownMel=own_mel, **places)

    return transcribe


def parakeet_js(case: Case, own_mel: bool) -> Transcripts:
    sizes = {"suffix": suffix_of(case.variant), "bands": case.spec.frontend.n_mels}
    return case.node("parakeet", folder=str(case.package("parakeet-js")), ownMel=own_mel, **sizes)


def transformers(case: Case, own_mel: bool) -> Transcripts:
    dtype = transformers_js.DTYPES[case.variant][0]
    return case.node("transformers", folder=str(case.package("transformers-js")), dtype=dtype, ownMel=own_mel)


def genai(case: Case, own_mel: bool) -> Transcripts:
    python = case.environments / "genai" / "venv" / "bin" / "python"
    if not python.exists():
        raise AbsentError("no onnxruntime-genai")
    command = [str(python), str(PEERS / "genai_transcribe.py"), str(case.package("genai") / case.variant)]
    paths = [str(case.utterances[0].path), *(str(u.path) for u in case.utterances)]  # the first one twice
    made = subprocess.run(command, input="\n".join(paths) + "\n", capture_output=True, text=True, check=True)
    found = dict(zip((u.id for u in case.utterances), map(json.loads, made.stdout.splitlines()[1:]), strict=True))
    texts, tokens = ({i: one[field] for i, one in found.items()} for field in ("text", "tokens"))
    return Transcripts({i: text.strip() for i, text in texts.items()}, tokens, sum(one["seconds"] for one in found.values()))


def make_environments(folder: Path) -> list[str]:
    """Makes the environments that are not there, and returns why one cannot be made."""
    sys.path.append(str(PEERS))
    from genai import environment

    reasons = []
    try:
        node_programs.environment(folder / "node")
    except AbsentError as error:
        reasons.append(str(error))
    try:
        environment(folder / "genai" / "venv")
    except (OSError, subprocess.CalledProcessError) as error:
        reasons.append(f"onnxruntime-genai: {error}")
    return reasons


@dataclass(frozen=True)
class Consumer:
    """kinds: of checkpoints; layout: whose variants it runs; both_mels: whether it can be given features."""

    name: str
    version: str
    kinds: tuple[str, ...]
    transcribe: Callable[[Case, bool], Transcripts]
    layout: str = "native"
    both_mels: bool = True

    def runs(self, variant: str) -> bool:
        return load_layout(self.layout).takes(variant) and (self.layout == "native" or cache_layout_of(variant) == NEMO)


def consumers() -> list[Consumer]:
    npm = json.loads((node_programs.PROGRAMS / "package.json").read_text())["dependencies"]
    streaming, tdt, ctc = "streaming-rnnt", "offline-tdt", "offline-ctc"
    web = [
        Consumer(f"{name} (Node)", npm[name], (streaming, tdt, ctc), onnxruntime_js(name))
        for name in ("onnxruntime-node", "onnxruntime-web")
    ]
    return [
        Consumer("onnx-asr", version("onnx-asr"), (tdt, ctc), onnx_asr, "onnx-asr"),
        Consumer("sherpa-onnx", version("sherpa-onnx"), (streaming, tdt, ctc), sherpa_onnx, "sherpa-onnx", False),
        Consumer("sherpa-onnx (npm)", npm["sherpa-onnx"], (streaming, tdt, ctc), sherpa_onnx_node, "sherpa-onnx", False),
        Consumer("onnxruntime-genai", "0.18.0", (streaming, tdt), genai, "genai", False),
        *web,
        Consumer("parakeet.js", npm["parakeet.js"], (tdt,), parakeet_js, "parakeet-js"),
        Consumer("transformers.js", npm["@huggingface/transformers"], (ctc,), transformers, "transformers-js"),
    ]
