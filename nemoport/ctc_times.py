"""Times of a CTC model's tokens and words as NeMo 3.0.0 defines them, for results that are compared with its `timestamps=True`.

NeMo ends a token on the first frame of its run, and begins it on the first frame of the token before; the first one lasts a frame
(`_compute_offsets` in ctc_decoding.py: `token_lengths` counts the frames from one token's start to the next one's). So a word
begins with the last sound of the word before it. nemoport's own times are those of the runs.
"""

from __future__ import annotations

from dataclasses import replace

from nemoport.errors import UsageError
from nemoport.long_audio import Timed
from nemoport.spec import CTC, ModelSpec
from nemoport.transcription import Hypothesis
from nemoport.words import WordTimes, segments_of


def with_nemo_times(hypothesis: Hypothesis, words: WordTimes, spec: ModelSpec) -> Hypothesis:
    """Returns a transcript with NeMo's times of tokens, words and segments. words: new. Raises UsageError for a transducer."""
    if spec.head != CTC:
        raise UsageError(
            "NeMo's times of CTC are of a CTC model.",
            expected="a CTC model; the times of transducers are NeMo's in any case",
            found=spec.kind,
            todo="leave --nemo-times out",
        )
    ends = hypothesis.token_seconds
    starts = (*(max(end - spec.frame_seconds, 0.0) for end in ends[:1]), *ends[:-1])
    durations = tuple(end - start for start, end in zip(starts, ends, strict=True))
    timed = Timed(hypothesis.tokens, starts, durations, hypothesis.token_confidences)
    found = (*words.feed(timed), *words.finish())
    return replace(hypothesis, token_seconds=starts, token_duration_seconds=durations, words=found, segments=segments_of(found))
