"""What consumers of streaming packages do around the graphs, for tests: windows behind nine zero frames, greedy decoding."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from nemoport.decode import GreedyState, greedy
from nemoport.frontend import LogMel, mel_filterbank
from nemoport.spec import ModelSpec


def log_mel(spec: ModelSpec, samples: np.ndarray) -> np.ndarray:
    """f32 [bands, frames]"""
    return LogMel(spec.frontend, mel_filterbank(spec.frontend).astype(np.float32)).whole(samples)


def windows(spec: ModelSpec, lookahead: int, mel: np.ndarray) -> Iterable[np.ndarray]:
    """f32 [1, bands, cache + chunk]: zeros before the first chunk, later the frames before it; the rest padded with zeros."""
    before, size = spec.streaming.pre_encode_cache_mel_frames, spec.streaming.chunk_mel_frames(lookahead, first=False)
    padded = np.pad(mel, ((0, 0), (before, -mel.shape[1] % size)))
    for start in range(0, padded.shape[1] - before, size):
        yield np.ascontiguousarray(padded[None, :, start : start + before + size])


def own_tokens(session, spec: ModelSpec, inputs: Iterable[np.ndarray], prompts: Sequence[int] = ()) -> list[int]:
    """Tokens that nemoport's session and its decoding make of windows."""
    state, decoded = session.initial_state(1, prompts), [GreedyState.initial(spec.decoding)]
    for window in inputs:
        frames, lengths, state = session.encode(window, np.array([window.shape[2]]), state)
        greedy(session, frames, lengths, decoded)
    return list(decoded[0].tokens)


def opened(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(path), options)


def named(session, feeds: dict) -> dict[str, np.ndarray]:
    """The outputs by name, of exactly these inputs."""
    assert {i.name for i in session.get_inputs()} == feeds.keys()
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def decode(step: Callable, frames: Iterable[np.ndarray], state: list, blank: int, most: int) -> list[int]:
    """Greedy decoding as the consumers write it. step(frame, token, states) -> scores, next states; state: [token, states], which
    goes on from call to call."""
    tokens = []
    for frame in frames:
        for _ in range(most):
            scores, after = step(frame, *state)
            best = int(np.argmax(scores))
            if best == blank:
                break
            tokens.append(best)
            state[:] = [best, after]
    return tokens
