"""Gate `cost`: bytes on disk, speed of one live stream and peak memory, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

from nemoport.artifact import Artifact
from nemoport.buffered import ChunkContext
from nemoport.errors import ArtifactError
from nemoport.runtimes import runtime_version
from nemoport.spec import context_name
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.probe import StreamCost
from nemoport.variant import instruction_set

AUDIO_SECONDS = 60.0  # at least one utterance, then more until there is as much
TIMEOUT_SECONDS = 1800


def run(context: Context) -> list[GateResult]:
    artifact = context.artifact
    size = sum(entry.bytes for entry in artifact.manifest.files.values())
    fp32 = context.folder.with_name(context.limits.fp32)
    parent = sum(entry.bytes for entry in Artifact.open(fp32).manifest.files.values())
    figures = measure(context)
    speed, n = figures.audio_seconds / figures.work_seconds, figures.utterances
    threads = f"{context.threads} threads" if context.threads else "its choice of threads"
    note = f"{context_name(figures.lookahead)}, {figures.audio_seconds:.0f} s of audio, one stream; {instruction_set()}, "
    note += f"{runtime_version(context.limits.target)}, provider {context.provider}, {threads}"
    return [
        context.judge("cost", "bytes", size, limit=None, unit="bytes", n=len(artifact.manifest.files)),
        context.judge("cost", "bytes of fp32's", size / parent, limit="max_bytes_ratio", unit="ratio", n=1),
        context.judge("cost", "speed", speed, limit=None, unit="times real time", n=n, evidence=note),
        context.judge("cost", "peak memory", figures.peak_bytes, limit=None, unit="bytes", n=n, evidence=note),
        context.judge("cost", "tokens", figures.tokens, limit="min_tokens", at_least=True, unit="tokens", n=n),
    ]


def measure(context: Context) -> StreamCost:
    """Runs `nemoport.validate.probe` on the first utterances. Raises ArtifactError with the end of its stderr if it fails."""
    chosen: list[str] = []
    seconds = 0.0
    for utterance in context.corpus.utterances:
        if seconds >= AUDIO_SECONDS:
            break
        chosen += [str(utterance.path), str(utterance.offset_s), str(utterance.duration_s)]
        seconds += utterance.seconds
    command = [sys.executable, "-m", "nemoport.validate.probe", str(context.folder)]
    command += [context.provider, str(context.threads), context.prompt_language, *chosen]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode:
        raise ArtifactError(
            f"{context.variant} does not run in a process of its own.",
            expected="exit code 0",
            found=f"{done.returncode}: {done.stderr.strip()[-500:]}",
            todo=" ".join(command[:4]),
        )
    figures = StreamCost(**json.loads(done.stdout.splitlines()[-1]))
    window = figures.lookahead
    return replace(figures, lookahead=ChunkContext(*window)) if isinstance(window, list) else figures
