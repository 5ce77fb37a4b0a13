"""Buffered streaming: an offline encoder that was trained for it runs over windows of the audio, [left | chunk | right], each
encoded anew.

Formulas: NeMo's speech_to_text_streaming_infer_rnnt.py and, of the attention within a window, `ConformerEncoder._create_masks` of
the style chunked_limited_with_rc. Contexts are counted in encoder frames of 80 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from nemoport.errors import UsageError
from nemoport.schema import most, whole

ATT_CONTEXT = "att_context_size"  # optional input i64 [3] of the encoder graph: a ChunkContext; without it the full context
DEFAULT_FRAMES = 7  # of chunk and right context, where the checkpoint was trained for it: 1.12 s, as the published figures
Menu = Annotated[tuple[Annotated[int, whole(0, 10_000)], ...], most(32, least=1)]


class ChunkContext(NamedTuple):
    """A window in encoder frames: the chunk that is decoded, what is before it, and what is behind it. Attention sees of a
    window, whose chunks are counted from its first frame, `left` frames before a frame's chunk and `right` behind it."""

    left: int
    chunk: int
    right: int

    @property
    def latency_enc_frames(self) -> int:
        """Encoder frames from the beginning of a chunk until it can be encoded: the algorithmic latency."""
        return self.chunk + self.right

    @property
    def encoded_ratio(self) -> float:
        """Audio that is encoded, of windows as long as they get, by that which is decoded."""
        return sum(self) / self.chunk

    def __str__(self) -> str:
        return f"chunk {self.chunk}, right {self.right}"


FULL_CONTEXT = ChunkContext(-1, -1, -1)


@dataclass(frozen=True)
class BufferedSpec:
    """Contexts that an offline encoder was trained to stream with: NeMo's `att_chunk_context_size`, in encoder frames. Any chunk
    goes with any right context."""

    lefts: Menu
    chunks: Menu
    rights: Menu

    def context(self, chunk: int | None = None, right: int | None = None) -> ChunkContext:
        """Returns the window of a chunk and a right context, each by default DEFAULT_FRAMES or else the largest, with the longest
        left context. Raises UsageError for frames that the model was not trained with."""
        found = {"chunk": _default(self.chunks) if chunk is None else chunk}
        found["right"] = _default(self.rights) if right is None else right
        for name, menu in (("chunk", self.chunks), ("right", self.rights)):
            if found[name] not in menu:
                raise UsageError(
                    f"This model does not stream with {found[name]} frames of {name}{' context' if name == 'right' else ''}.",
                    expected=f"one of {', '.join(map(str, sorted(menu)))}",
                    found=str(found[name]),
                    todo="choose one of these; others were never trained. The latency is both together",
                )
        return ChunkContext(max(self.lefts), **found)

    @property
    def judged(self) -> tuple[ChunkContext, ...]:
        """The windows that the gates run: the default, the longest latency and the shortest."""
        ends = (self.context(pick(self.chunks), pick(self.rights)) for pick in (max, min))
        return tuple(dict.fromkeys((self.context(), *ends)))


def _default(menu: tuple[int, ...]) -> int:
    return DEFAULT_FRAMES if DEFAULT_FRAMES in menu else max(menu)
