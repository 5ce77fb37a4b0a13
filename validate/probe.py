"""Measures speed and peak memory of one live stream, and prints a StreamCost as one JSON object.

    python -m nemoport.validate.probe FOLDER PROVIDER THREADS LANGUAGE [AUDIO OFFSET DURATION]...

LANGUAGE is the prompt, "" for a model without one; OFFSET and DURATION are those of a row of a manifest, in seconds. The gate
`cost` runs this in a process of its own, so that the peak is that of the artifact and of nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nemoport.audio import read_audio
from nemoport.recognizer import Recognizer
from nemoport.spec import Lookahead


@dataclass(frozen=True)
class StreamCost:
    """Figures of streams over several utterances, one after another. work_seconds: wall-clock time in the recognizer."""

    lookahead: Lookahead
    utterances: int
    audio_seconds: float
    work_seconds: float
    tokens: int
    peak_bytes: int


def main(folder: str, provider: str, threads: str, language: str, *audio: str) -> None:
    segments = list(zip(audio[::3], map(float, audio[1::3]), map(float, audio[2::3]), strict=True))
    recognizer = Recognizer.open(
        Path(folder), provider=provider, threads=int(threads), language=language or None, built_here=True
    )
    rate_hz = recognizer.sample_rate_hz
    packet_samples = rate_hz // 10
    tokens, audio_samples, work_seconds = 0, 0, 0.0
    lookahead = recognizer.stream().lookahead
    for path, offset_s, duration_s in segments:
        samples = read_audio(Path(path), rate_hz, offset_s=offset_s, duration_s=duration_s)
        stream = recognizer.stream()
        started = time.perf_counter()
        for at in range(0, len(samples), packet_samples):
            stream.feed(samples[at : at + packet_samples])
        stream.finish()
        work_seconds += time.perf_counter() - started
        audio_samples += len(samples)
        tokens += len(stream.tokens)
    cost = StreamCost(lookahead, len(segments), audio_samples / rate_hz, work_seconds, tokens, peak_bytes())
    print(json.dumps(asdict(cost)))


def peak_bytes() -> int:
    """Peak resident memory of this process.

    Linux: VmHWM, because `ru_maxrss` survives exec and would be the parent's size where that was larger.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
