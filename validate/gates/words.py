"""Gate `words`: times of tokens, and events, beside NeMo's; how far the confidence of words is from the share that is right.

A token has a time where NeMo's run has it too; tokens that only one of both has are the gate `tokens`' concern. The events of a
model that marks ends of utterances are no words, so that word error rates do not show one that is lost: they are counted here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nemoport.validate.calibration_error import BINS, expected_calibration_error, judged_words, reliability
from nemoport.validate.context import Context
from nemoport.validate.gate_result import GateResult
from nemoport.validate.oracle import Record
from nemoport.validate.reliability_plot import RELIABILITY
from nemoport.validate.runs import UtteranceRun

EVENT_FRAMES = 2  # a chunk at the lookahead of the published model of that kind


def run(context: Context) -> list[GateResult]:
    pairs = [pair for _, _, runs, nemo in context.compared() for pair in zip(runs, nemo, strict=True)]
    return [*_times(context, pairs), *_events(context, pairs), *_confidence(context)]


def _times(context: Context, pairs: Sequence[tuple[UtteranceRun, Record]]) -> list[GateResult]:
    moved = [frames for pair in pairs for frames in _moved(*pair)]
    worst = max(moved, default=0)
    n, evidence = len(moved), f"of {len(moved)} tokens that NeMo has too, the furthest by {worst} encoder frames"

    def share(frames: int) -> float:
        return sum(m <= frames for m in moved) / n if n else float("nan")

    return [
        context.judge("words", case, share(frames), limit=limit, at_least=True, unit="share of tokens", n=n, evidence=evidence)
        for case, frames, limit in (("same time", 0, "min_same_time"), ("within a frame", 1, "min_within_a_frame"))
    ]


def _events(context: Context, pairs: Sequence[tuple[UtteranceRun, Record]]) -> list[GateResult]:
    """Judges the share of NeMo's events that the artifact has within EVENT_FRAMES, and those that only the artifact has, as a
    share of NeMo's too. Where NeMo has none, there is no share to judge."""
    kinds = context.spec.events.kinds if context.spec.events else {}
    n = both = own = 0
    for pair in pairs:
        (ours, theirs) = ([(t, f) for t, f in zip(one.tokens, one.token_frames, strict=True) if t in kinds] for one in pair)
        left = Counter(theirs)
        for token, frame in ours:
            near = [key for key in left if key[0] == token and abs(key[1] - frame) <= EVENT_FRAMES and left[key]]
            if near:
                left[min(near, key=lambda key: abs(key[1] - frame))] -= 1
                both += 1
        n, own = n + len(theirs), own + len(ours)
    evidence = f"NeMo has {n} events, the artifact {own}, {both} of them NeMo's"
    shares = [("events that NeMo has", both / n, "min_events")] if n else []
    shares += [("events that NeMo has not", (own - both) / max(n, 1), "max_more_events")] if kinds else []
    return [
        context.judge(
            "words", case, share, limit=limit, at_least=limit == "min_events", unit="of NeMo's", n=len(pairs), evidence=evidence
        )
        for case, share, limit in shares
    ]


def _moved(run: UtteranceRun, reference: Record) -> list[int]:
    """How many encoder frames each token that both have is from NeMo's."""
    from rapidfuzz.distance import Levenshtein

    return [
        abs(run.token_frames[ours] - reference.token_frames[theirs])
        for block in Levenshtein.editops(run.tokens, reference.tokens).as_matching_blocks()
        for ours, theirs in zip(range(block.a, block.a + block.size), range(block.b, block.b + block.size), strict=True)
    ]


def _confidence(context: Context) -> list[GateResult]:
    """Records the calibration error over all lookaheads, by the flush rule that users get, and the share right in each bin."""
    judged = [
        unit
        for _, runs, _ in context.compared_by_default_rule()
        for run, utterance in zip(runs, context.corpus.utterances, strict=True)
        for unit in judged_words(run.words, utterance.text, utterance.language)
    ]
    if not judged:  # audio without transcripts
        return []
    error = expected_calibration_error(judged)
    return [
        context.judge("words", "calibration error of confidence", error, limit=None, unit="", n=len(judged)),
        *(
            context.judge(
                "words",
                f"{RELIABILITY}{one.lower:.1f} to {one.lower + 1 / BINS:.1f}",
                one.right,
                limit=None,
                unit="share of words",
                n=one.n,
                evidence=f"mean confidence {one.mean:.3f}",
            )
            for one in reliability(judged)
        ),
    ]
