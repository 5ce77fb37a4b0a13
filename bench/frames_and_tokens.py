"""What the scripts here share: the encoder frames and tokens of utterances."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nemoport.artifact import Artifact
from nemoport.speech.corpus import Utterance
from nemoport.stream import Stream, advance


def frames_and_tokens(
    session, artifact: Artifact, utterances: Iterable[Utterance], lookahead: int
) -> tuple[np.ndarray, list[list[int]]]:
    """session: nemoport.session.Session of the artifact, or of a changed copy. Encoder frames f32 [frames, d_model], and tokens
    by utterance."""
    frames, tokens = [], []
    for utterance in utterances:
        stream = Stream(session, artifact.filterbank(), lookahead)
        stream.push(utterance.samples())
        stream.close()
        while stream.chunks:
            frames += advance(session, [stream])
        tokens.append(list(stream.tokens))
    return np.concatenate(frames), tokens
