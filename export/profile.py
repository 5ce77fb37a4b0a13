"""Profiles: one chunk size and one lookahead of the attention within the chunk, as published packages fix both.

"320ms/3" is the chunk of lookahead 3. "1120ms/0" is 14 chunks of lookahead 0 in one call: a frame attends to no later frame, as
the model was trained for that lookahead, and one call does the work of 14. The latency is that of the whole chunk. NeMo streams
such chunks with `setup_streaming_params(chunk_size=14, shift_size=14, left_chunks=4)`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from nemoport.errors import UsageError
from nemoport.export.checkpoint import Checkpoint


def profiled(checkpoint: Checkpoint, profile: str | None) -> Checkpoint:
    """The checkpoint with a spec of this profile alone: one lookahead, and `attention_lookahead` where that is less.

    profile: CHUNKms/LOOKAHEAD; None leaves the checkpoint as it is. Raises UsageError.
    """
    if profile is None:
        return checkpoint
    streaming = checkpoint.spec.streaming
    match = re.fullmatch(r"(\d+)ms/(\d+)", profile)
    frame_ms = round(1000 * checkpoint.spec.frame_seconds)
    frames, lookahead = (int(match[1]) // frame_ms, int(match[2])) if match else (0, 0)
    if streaming is None:
        wrong = "an offline model, which has no chunks"
    elif not match or int(match[1]) % frame_ms or not frames:
        wrong = f"{profile!r}"
    elif lookahead not in streaming.lookaheads:
        wrong = f"lookahead {lookahead}, not one of {', '.join(map(str, streaming.lookaheads))}"
    elif frames % (lookahead + 1) or streaming.left_context_enc_frames % frames:
        wrong = f"a chunk of {frames} frames, with {streaming.left_context_enc_frames} of left context"
    else:
        within = lookahead if frames > lookahead + 1 else None
        spec = replace(streaming, lookaheads=(frames - 1,), attention_lookahead=within)
        return replace(checkpoint, spec=replace(checkpoint.spec, streaming=spec))
    raise UsageError(
        "The profile cannot be used.",
        expected=f"CHUNKms/LOOKAHEAD such as 1120ms/0: a multiple of {frame_ms} ms that holds whole chunks of the lookahead "
        "and divides the left context",
        found=wrong,
        todo="correct --profile, or leave it out for a graph that serves every lookahead",
    )
