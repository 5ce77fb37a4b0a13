"""Holds what the gates of one variant share: the opened artifact, NeMo's records, and runs that are made once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact
from nemoport.chunker import flush_rules
from nemoport.errors import CorpusError
from nemoport.export.checkpoint import Checkpoint
from nemoport.finite_weights import check_finite_weights
from nemoport.progress import Progress, Step, silent
from nemoport.prompt import AUTO
from nemoport.runtimes import open_session
from nemoport.spec import Lookahead, ModelSpec, context_name
from nemoport.speech.corpus import Corpus
from nemoport.speech.longform import PAUSES_S, LongForm, make_longform
from nemoport.validate.finite import FiniteSession
from nemoport.validate.gate_result import GateResult, artifact_sha256, within
from nemoport.validate.limits import Limits, limits_digest
from nemoport.validate.modes import mode_of
from nemoport.validate.oracle import Oracle, Record, record_runs
from nemoport.validate.runs import CorpusRunner, UtteranceRun
from nemoport.validate.stamps import judge_digest

# The longest recording that an offline model is given in one pass, as published. NeMo's attention takes memory by the square:
# at ten minutes and 8 heads its scores are 1.8 GB, those of the positions 3.6, and it holds several of either.
OFFLINE_MINUTES = 6.5


@dataclass
class Context:
    """One variant under validation, and what its gates need. threads: intra-op threads, 0 for the runtime's choice."""

    folder: Path  # of the artifact, in its build or package
    limits: Limits
    checkpoint: Checkpoint
    corpus: Corpus
    oracle: Oracle
    provider: str = "cpu"
    threads: int = 0
    progress: Progress = silent
    details: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)  # gate -> what it keeps, see details.py
    _runs: dict[tuple[Lookahead, int, int], dict[str, tuple[UtteranceRun, ...]]] = field(default_factory=dict, repr=False)

    @property
    def spec(self) -> ModelSpec:
        """The spec of the checkpoint, not that in the artifact's config.json."""
        return self.checkpoint.spec

    @property
    def lookaheads(self) -> tuple[Lookahead, ...]:
        """Lookaheads of the checkpoint that the artifact serves, in the checkpoint's order."""
        return tuple(lookahead for lookahead in self.spec.lookaheads if lookahead in self.artifact.lookaheads)

    @property
    def long_lookaheads(self) -> tuple[Lookahead, ...]:
        """Those that long recordings and degraded audio are judged at: the first, and of a buffered model its default window."""
        return self.lookaheads[: 2 if self.spec.buffered else 1]

    @property
    def variant(self) -> str:
        return self.limits.variant

    @cached_property
    def sha256(self) -> str:
        return artifact_sha256(self.folder)

    @cached_property
    def artifact(self) -> Artifact:
        return Artifact.open(self.folder)

    @cached_property
    def runner(self) -> CorpusRunner:
        for graph in sorted((*self.folder.glob("*.onnx"), *self.artifact.shared.glob("*.onnx"))):
            check_finite_weights(graph)  # outputs need not show what is wrong
        session = open_session(self.artifact, self.provider, self.threads, built_here=True)
        return CorpusRunner.open(self.artifact, FiniteSession(session))

    @cached_property
    def judge_digest(self) -> str:
        """Digest of the code that runs and judges the artifact, the runtime and its execution provider."""
        return judge_digest(self.limits.target, self.provider)

    def stamp(self, result: GateResult) -> GateResult:
        """Returns the result with the digests of limits, oracle and code that it was judged with."""
        return replace(
            result,
            limits_sha256=limits_digest(),
            oracle_digest=self.oracle.digest,
            judge_digest=self.judge_digest,
        )

    def run(self, lookahead: Lookahead, streams: int | None = None, every: int = 1) -> dict[str, tuple[UtteranceRun, ...]]:
        """Runs the corpus at one lookahead, by every flush rule, or returns the run that was made before; see CorpusRunner.run.

        streams: utterances at once, default those of the limits. every: 1 for all utterances, n for each n-th of them. Raises
        CorpusError for an empty corpus, and as CorpusRunner.run.
        """
        if not self.corpus.utterances:
            raise CorpusError(
                "There is nothing to judge the artifact on.",
                expected="utterances",
                found="an empty corpus",
                todo="check the manifest",
            )
        streams = streams or self.limits.streams
        key = (lookahead, streams, every)
        if key not in self._runs:
            part = replace(self.corpus, utterances=self.corpus.utterances[::every])
            where = f"{self.variant}: {context_name(lookahead)}, {streams} at once"

            def show(seconds: float) -> None:
                self.progress(Step(where, seconds, part.seconds, "s of audio"))

            self._runs[key] = self.runner.run(part, lookahead, streams, show)
        return self._runs[key]

    def compared(self) -> list[tuple[Lookahead, str, tuple[UtteranceRun, ...], tuple[Record, ...]]]:
        """(lookahead, flush rule, the artifact's runs, NeMo's), for each of them that NeMo has a run of."""
        return [
            (lookahead, flush, self.run(lookahead)[flush], references)
            for lookahead in self.lookaheads
            for flush in flush_rules(self.spec)
            if (references := self.oracle.expected(lookahead, flush)) is not None
        ]

    def longform(self, lookahead: Lookahead) -> list[tuple[LongForm, Record]]:
        """Makes long recordings of the evaluation speech, each with NeMo's run of it.

        For a streaming model one recording of the limit `minutes`; for an offline model as many as make up that time, each no
        longer than OFFLINE_MINUTES, or than graphs of fixed shapes take.
        """
        minutes = self.limits.get("longform", "minutes")
        longest = min(minutes, OFFLINE_MINUTES) if lookahead is None else minutes
        if self.artifact.longest_s is not None:  # a recording ends with a whole utterance and a pause
            behind = max(utterance.seconds for utterance in self.corpus.utterances) + max(PAUSES_S)
            longest = min(longest, max(self.artifact.longest_s - behind, 1.0) / 60)
        numbers = range(math.ceil(minutes / longest))
        forms = [make_longform(self.corpus, longest, self.folder.parent, self.prompt_language, number) for number in numbers]
        every = replace(self.corpus, utterances=tuple(form.corpus.utterances[0] for form in forms))
        return list(zip(forms, self.nemo_reference(every, lookahead), strict=True))

    @property
    def prompt_language(self) -> str:
        """Language prompt for a recording in all languages of the corpus; "" for a model without a prompt."""
        if self.spec.prompt is None:
            return ""
        return AUTO if AUTO in self.spec.prompt.languages else self.corpus.utterances[0].prompt_language

    def nemo_reference(self, corpus: Corpus, lookahead: Lookahead) -> tuple[Record, ...]:
        """NeMo's run over another corpus, streaming, or offline for an offline model: what `reference_rule` is compared with."""
        mode = mode_of(lookahead)
        return record_runs(self.checkpoint, corpus, [(mode, lookahead)], self.folder.parent, self.progress).runs[mode, lookahead]

    @property
    def reference_rule(self) -> str:
        """The flush rule that gives what `nemo_reference` gives: "nemo", or "full" for an offline model."""
        return flush_rules(self.spec)[-1]

    def compared_by_default_rule(self) -> list[tuple[Lookahead, tuple[UtteranceRun, ...], tuple[Record, ...]]]:
        """(lookahead, the artifact's runs, NeMo's) by the flush rule that users get, "full"; by "nemo" at lookahead 0, where
        NeMo has no run that "full" can be compared with."""
        best = {lookahead: (runs, references) for lookahead, flush, runs, references in self.compared() if flush == "nemo"}
        best |= {lookahead: (runs, references) for lookahead, flush, runs, references in self.compared() if flush == "full"}
        return [(lookahead, *pair) for lookahead, pair in best.items()]

    def judge(
        self,
        gate: str,
        case: str,
        measured: float,
        *,
        limit: str | None,
        unit: str,
        n: int,
        at_least: bool = False,
        interval: tuple[float, float] | None = None,
        evidence: str = "",
    ) -> GateResult:
        """Judges one figure by its limit.

        limit: its name in gates.toml, None for a figure that is only recorded; at_least: the limit is the smallest value that
        passes. n: how many utterances, files or checks were measured; interval: 95 %. Raises UsageError for a limit that
        gates.toml does not state.
        """
        bound = self.limits.get(gate, limit) if limit else None
        status = within(measured, bound, at_least=at_least, n=n)
        return GateResult(gate, self.variant, self.sha256, status, case, float(measured), bound, unit, n, interval, evidence)
