"""`python -m nemoport.validate.probe FOLDER PROVIDER THREADS LANGUAGE AUDIO...`: speed and peak memory of one live stream.

LANGUAGE: what a model with a prompt is told; "" for any other.

A process of its own, so that its peak is that of the artifact and of nothing else. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from nemoport.audio import read_audio
from nemoport.recognizer import Recognizer


def main(folder: str, provider: str, threads: str, language: str, *audio: str) -> None:
    recognizer = Recognizer.open(Path(folder), provider=provider, threads=int(threads), language=language or None)
    rate_hz = recognizer.sample_rate_hz
    packet_samples = rate_hz // 10
    tokens, samples_heard, work_seconds = 0, 0, 0.0
    for path in audio:
        samples = read_audio(Path(path), rate_hz)
        stream = recognizer.stream()
        started = time.perf_counter()
        for at in range(0, len(samples), packet_samples):
            stream.feed(samples[at : at + packet_samples])
        stream.finish()
        work_seconds += time.perf_counter() - started
        samples_heard += len(samples)
        tokens += len(stream.tokens)
    print(
        json.dumps(
            {
                "lookahead": recognizer.lookahead,
                "utterances": len(audio),
                "audio_seconds": samples_heard / rate_hz,
                "work_seconds": work_seconds,
                "tokens": tokens,
                "peak_bytes": peak_bytes(),
            }
        )
    )


def peak_bytes() -> int:
    """Peak resident memory of this process.

    Linux: VmHWM. `ru_maxrss` survives exec, so that it would tell the parent's size where that was larger.
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
