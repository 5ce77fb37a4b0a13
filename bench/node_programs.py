"""Runs the npm packages that load our graphs, by the programs of bench/node: a job in, tokens and processor time out.

Packages are those of bench/node/package-lock.json, in an environment of their own; onnxruntime's own scripts, which would fetch
libraries for GPUs, are not run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import Utterance

PROGRAMS = Path(__file__).resolve().parent / "node"
PAGE_MODULES = PROGRAMS.parent.parent / "web" / "page" / "asr"


class AbsentError(Exception):
    """What a consumer needs is not there; its text names it."""


@dataclass(frozen=True)
class Transcripts:
    """texts and tokens, by id of the recording; tokens: ids, or pieces; empty where a consumer gives none. seconds: of processor
    time, without opening."""

    texts: dict[str, str]
    tokens: dict[str, list[Any]]
    seconds: float


def environment(folder: Path) -> Path:
    """Puts the programs and, once, the pinned packages into a folder and returns it. Raises AbsentError where npm is missing, or
    fetches nothing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not (node and npm):
        raise AbsentError("no node and npm among this machine's programs")
    folder.mkdir(parents=True, exist_ok=True)
    lock, done = (PROGRAMS / "package-lock.json").read_bytes(), folder / "node_modules" / ".lock"
    for path in PROGRAMS.iterdir():
        shutil.copyfile(path, folder / path.name)
    if not done.exists() or done.read_bytes() != lock:
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if made.returncode:
            raise AbsentError(f"npm fetched nothing: {(made.stderr or made.stdout).strip()[:200]}")
        done.write_bytes(lock)
    return folder


def write_clips(recognizer: Recognizer, utterances: Sequence[Utterance], folder: Path) -> list[dict[str, Any]]:
    """Writes samples and nemoport's own windows of log-mel for the programs, and returns their `clips`."""
    clips = []
    for number, utterance in enumerate(utterances):
        stream, samples = recognizer.stream(), utterance.samples()
        stream.push(samples)
        stream.close()
        paths = [folder / f"{number}.{kind}" for kind in ("samples", "mel")]
        paths[0].write_bytes(samples.astype("<f4").tobytes())
        paths[1].write_bytes(b"".join(np.ascontiguousarray(chunk.mel, "<f4").tobytes() for chunk in stream.chunks))
        windows = [{"length": chunk.length, "size": chunk.mel.shape[1]} for chunk in stream.chunks]
        mel = {"file": str(paths[1]), "bands": stream.chunks[0].mel.shape[0], "windows": windows}
        clips.append({"id": utterance.id, "samples": str(paths[0]), "mel": mel})
    return clips


def run(environment: Path, program: str, clips: Sequence[dict[str, Any]], /, **job: Any) -> Transcripts:
    """Runs a program in an environment on clips. job: what the program needs besides, see its first lines. Raises
    RuntimeError with what it printed where it fails."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "job.json"
        path.write_text(json.dumps({**job, "clips": clips}))
        command = ["node", str(environment / f"{program}.mjs"), str(path)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(f"{program}: {made.stderr.strip()[-2000:]}")
    found = json.loads(made.stdout)
    texts = {clip["id"]: clip["text"].strip() for clip in found["clips"]}
    return Transcripts(texts, {clip["id"]: clip["tokens"] for clip in found["clips"] if "tokens" in clip}, found["seconds"])
