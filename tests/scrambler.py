"""A session without a model, of which every output depends on all that it is given; and speech for it."""

import hashlib

import numpy as np

from nemoport.caches import NemoCaches
from nemoport.caches_kv import KvCaches
from nemoport.frontend import mel_filterbank
from nemoport.spec import DecodingSpec, FrontendSpec, ModelSpec, OfflineSpec, StreamingSpec

FRONTEND = FrontendSpec(1600, 8, 64, 40, 16, 0.97, 2.0**-24, "NA")
DECODING = DecodingSpec(3, 1, 2, 1, 3)
STREAMING = StreamingSpec(2, 4, 2, 3, (0, 1, 3), 2, 8, 9)
BANK = mel_filterbank(FRONTEND)
MIX = np.array([[1, 3, 5, 7], [2, 9, 4, 6], [8, 1, 7, 3], [5, 2, 6, 9]])


def drawn(*parts, shape, high=9):
    """Numbers that any change of the parts changes."""
    digest = hashlib.sha256(b"|".join(np.ascontiguousarray(part).tobytes() for part in parts)).digest()
    return np.random.default_rng(list(digest[:16])).integers(0, high, shape).astype(np.float32)


class Scrambler:
    """A session without a model. Every frame depends on all of its stream's window and caches, and every score on the frame, the
    token before it and the state: a sample, a cache or a state of another stream shows in the tokens."""

    def __init__(self, kind):
        if kind is None:
            self.spec = ModelSpec("offline-rnnt", FRONTEND, DECODING, offline=OfflineSpec(1, 4, 1, 8))
        else:
            self.spec = ModelSpec("streaming-rnnt", FRONTEND, DECODING, STREAMING)
        self.kind = kind

    def initial_state(self, batch, prompts=()):
        return self.kind.initial(STREAMING, batch) if self.kind else [None] * batch

    def stack(self, states):
        return self.kind.stack(states) if self.kind else states

    def unstack(self, state):
        return state.rows() if self.kind else state

    def encode(self, mel, lengths, state):
        feeds = state.feeds() if self.kind else {}
        frames, new = [], []
        for row, length in enumerate(lengths):
            held = [np.take(array, row, self._axis(name)) for name, array in feeds.items()]
            count = -(-int(length) // 8)
            frames.append(drawn(mel[row, :, :length], *held, shape=(mel.shape[2] // 8 + 1, 4)))
            frames[-1][count:] = 7  # what lies behind the valid frames is no stream's
            new.append([drawn(mel[row, :, :length], array, shape=array.shape) for array in held])
        counts = -(-lengths // 8)
        if self.kind is None:
            return np.stack(frames), counts, state
        if self.kind is NemoCaches:
            return np.stack(frames), counts, state.advance([np.stack(parts) for parts in zip(*new, strict=True)])
        made = dict(zip(feeds, zip(*new, strict=True), strict=True))
        names = [name for name in KvCaches.shapes(STREAMING, 1) if name != "cache_len"]
        return np.stack(frames), counts, state.advance([np.stack([part[:2] for part in made[name]], 1) for name in names])

    def _axis(self, name):
        return 1 if self.kind is KvCaches and name != "cache_len" else 0

    def step(self, frames, tokens, state):
        hidden, cell = (part[0] for part in state)  # [B, 2]
        before = 3 * tokens[:, None] + 5 * hidden + 7 * cell + [1, 2]
        scores = (frames @ MIX + (before @ MIX[:2])[:, None]) % 11 + [0, 0, 0, 3]  # whole numbers, exact in any order
        return scores.astype(np.float32), ((before % 13).astype(np.float32)[None], ((before // 2) % 7).astype(np.float32)[None])


def spoken(seed, length):
    return np.random.default_rng(seed).uniform(-1, 1, length).astype(np.float32)
