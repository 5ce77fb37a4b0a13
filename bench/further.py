"""Runs of the speech beside the committed one, each utterance at one lookahead, kept by artifact, audio and code.

They are compared with fp32's: fp32 emits NeMo's tokens, as the gates show on the committed speech, and as NeMo, run here on the
first utterances at each lookahead, shows on this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

from nemoport.files import digest_json, exclusive_lock, read_json, write_json
from nemoport.recognizer import Recognizer
from nemoport.spec import Lookahead
from nemoport.speech.corpus import Corpus, read_corpus
from nemoport.validate.context import Context
from nemoport.validate.oracle import OFFLINE, STREAMING, record_runs

EACH = 100  # utterances of a part; so many NeMo runs at each lookahead


@dataclass(frozen=True)
class Emitted:
    """What was emitted for an utterance."""

    tokens: tuple[int, ...]
    text: str


Part = tuple[Lookahead, Corpus]  # a part of the speech, and the lookahead that it is run at
Run = Callable[[Context, Part], list[Emitted]]


def parts(manifests: Sequence[Path], context: Context) -> list[Part]:
    """A manifest at each lookahead of the checkpoint in turn, cut into parts that are run and kept by themselves."""
    found = []
    for lookahead, manifest in zip(cycle(context.spec.lookaheads), manifests, strict=False):
        corpus = read_corpus(manifest, context.spec.frontend.sample_rate_hz)
        for start in range(0, len(corpus.utterances), EACH):
            found.append((lookahead, replace(corpus, utterances=corpus.utterances[start : start + EACH])))
    return found


def emitted(context: Context, part: Part) -> list[Emitted]:
    """By the product's flush rule, but at lookahead 0 by NeMo's, which alone can be compared with there."""
    (lookahead, corpus), runner = part, context.runner
    recognizer = Recognizer(runner.session, runner.filterbank, runner.pieces, lookahead, "full" if lookahead else "nemo")
    recordings = ((utterance.id, utterance.samples()) for utterance in corpus.utterances)
    found = {h.id: Emitted(h.tokens, h.text) for h in recognizer.transcribe(recordings, streams=context.limits.streams)}
    return [found[utterance.id] for utterance in corpus.utterances]


def kept(context: Context, part: Part) -> list[Emitted]:
    """As `emitted`, read if it was run before."""
    digest = digest_json([context.sha256, context.judge_digest, part[1].digest, part[0]])
    path = context.folder.parent / "further" / context.variant / f"{digest[:16]}.json"
    with exclusive_lock(path):  # processes that measure variants at the same time need the same runs of fp32
        if not path.is_file():
            write_json(path, {"runs": [[run.tokens, run.text] for run in emitted(context, part)]})
    return [Emitted(tuple(tokens), text) for tokens, text in read_json(path, f"remove {path}")["runs"]]


def check_by_nemo(fp32: Context, found: Sequence[Part]) -> int:
    """Runs NeMo on the first part at each lookahead: the number of utterances. Raises RuntimeError if fp32 emits other tokens."""
    first = dict(reversed(found))
    for lookahead, corpus in first.items():
        mode = OFFLINE if lookahead else STREAMING
        oracle = record_runs(fp32.checkpoint, corpus, [(mode, lookahead)], fp32.folder.parent, fp32.progress)
        both = zip(corpus.utterances, kept(fp32, (lookahead, corpus)), oracle.runs[mode, lookahead], strict=True)
        if other := [u.id for u, ours, its in both if ours.tokens != its.tokens]:
            raise RuntimeError(f"{corpus.path}, lookahead {lookahead}: fp32 differs from NeMo on {', '.join(other)}")
    return sum(len(corpus.utterances) for corpus in first.values())
