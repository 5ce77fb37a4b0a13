"""Transcribes clips with CrispASR or transcribe.cpp, in their own environment: `python gguf_worker.py TASK.json` prints JSON.

TASK: {"peer", "model", "clips": [[path of .npy f32 samples at 16 kHz, language or null], ...], "right": lookahead or null,
"chunk": samples of a chunk that is fed as a stream, or null for whole files}
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np


def crispasr(task: dict) -> list[dict]:
    import crispasr as peer

    rows = []
    with peer.Session(task["model"], n_threads=1) as session:
        for path, language in task["clips"]:
            segments = session.transcribe(np.load(path), language=language)
            rows.append(
                {
                    "text": " ".join(segment.text.strip() for segment in segments),
                    "tokens": [token.raw_text.decode(errors="replace") or token.text for s in segments for token in s.tokens],
                }
            )
    return rows


def transcribe_cpp(task: dict) -> list[dict]:
    import transcribe_cpp as peer

    rows = []
    family = None if task["right"] is None else peer.ParakeetStreamOptions(att_context_right=task["right"])
    with peer.Model(task["model"]) as model, model.session(n_threads=1) as session:
        for path, language in task["clips"]:
            samples = np.load(path)
            if task["chunk"] is None:
                result = session.run(samples, language=language)
            else:
                with session.stream(language=language, family=family) as stream:
                    for start in range(0, len(samples), task["chunk"]):
                        stream.feed(samples[start : start + task["chunk"]])
                    stream.finalize()
                    result = stream.snapshot()
            rows.append({"text": result.text, "tokens": [token.text for token in result.tokens]})
    return rows


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    output = os.dup(1)
    os.dup2(2, 1)  # the libraries print to standard output
    rows = {"crispasr": crispasr, "transcribe-cpp": transcribe_cpp}[task["peer"]](task)
    with os.fdopen(output, "w") as file:
        json.dump(rows, file)


if __name__ == "__main__":
    main()
