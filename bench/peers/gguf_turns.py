"""A worker of ../whole.py in the environment of gguf.py: gguf_turns.py KIND X.gguf THREADS AUDIO.npy.

KIND: transcribe-cpp, one stream, cache-aware; crispasr, a whole recording at once under the mask of the lookahead;
crispasr-caches, a whole recording too, chunk by chunk through caches.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import turns

# Lookahead -> CrispASR's own number of it; it has no other, and 56 frames to the left.
PRESETS = {3: 0, 0: 1, 6: 2, 13: 3}


def transcribe_cpp(path: str, threads: int):
    import transcribe_cpp as peer

    session, open_streams = peer.Model(path).session(n_threads=threads), []

    def begin(lookahead: int, n_streams: int) -> turns.Streams:
        """One stream: a model has no other until that is over."""
        for stream in open_streams:
            stream.reset()
        stream = session.stream(family=peer.ParakeetStreamOptions(att_context_right=lookahead))
        open_streams[:] = [stream]

        def found() -> tuple[int, str]:
            result = stream.snapshot()
            return len(result.tokens), result.text

        return turns.Streams(lambda pieces: stream.feed(pieces[0]), found)

    return begin


def crispasr(path: str, threads: int):
    import crispasr as peer

    opened = {}

    def begin(lookahead: int, n_streams: int) -> turns.Streams:
        os.environ["CRISPASR_NEMOTRON_CONTEXT_PRESET"] = str(PRESETS[lookahead])
        opened.clear()
        opened["session"] = session = peer.Session(path, n_threads=threads)
        last = []

        def step(pieces: list[np.ndarray]) -> None:
            last[:] = session.transcribe(pieces[0])

        return turns.Streams(step, lambda: (None, " ".join(segment.text.strip() for segment in last)))

    return begin


def main(kind: str, path: str, threads: str, audio: str) -> None:
    if kind == "crispasr-caches":
        os.environ["CRISPASR_NEMOTRON_STREAMING"] = "1"
    open_ = transcribe_cpp if kind == "transcribe-cpp" else crispasr
    turns.serve(open_(path, int(threads)), audio, whole=kind != "transcribe-cpp")


if __name__ == "__main__":
    main(*sys.argv[1:])
