"""What the gates of one variant share: the opened artifact, NeMo's record, and runs that are made once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import nemoport
from nemoport.artifact import Artifact
from nemoport.errors import CorpusError
from nemoport.export.checkpoint import Checkpoint
from nemoport.files import digest_json, sha256_file
from nemoport.progress import silent
from nemoport.runtimes import open_session, runtime_version
from nemoport.spec import AUTO, ModelSpec, context_name
from nemoport.speech.corpus import Corpus
from nemoport.speech.longform import LongForm, make_longform
from nemoport.stream import flush_rules
from nemoport.validate.finite import FiniteSession
from nemoport.validate.gate_result import GateResult, artifact_sha256, within
from nemoport.validate.limits import Limits, limits_digest
from nemoport.validate.oracle import OFFLINE, STREAMING, Oracle, Record, record_runs
from nemoport.validate.runs import CorpusRunner, UtteranceRun

PROGRESS_SECONDS = 10.0
# Of an offline model's one pass, as published. NeMo's attention takes memory by the square: at ten minutes and 8 heads
# its scores are 1.8 GB, those of the positions 3.6, and it holds several of either.
OFFLINE_MINUTES = 6.5
# Of nemoport/: what runs an artifact and reads the corpus. All of validate/ counts too.
RUN_BY = (
    "audio", "cache_layout", "caches", "caches_kv", "decode", "frontend", "heads", "interface", "runtime", "session", "stream",
    "tokens",
)  # fmt: skip
RUN_BY_FOLDERS = ("apple", "runtimes", "speech")


@dataclass
class Context:
    folder: Path  # of the artifact, in its build or package
    limits: Limits
    checkpoint: Checkpoint
    corpus: Corpus
    oracle: Oracle
    provider: str = "cpu"
    threads: int = 0
    progress: Callable[[str], None] = silent
    _runs: dict[tuple[int | None, int, int], dict[str, tuple[UtteranceRun, ...]]] = field(default_factory=dict, repr=False)

    @property
    def spec(self) -> ModelSpec:
        """The checkpoint's own, not what the artifact says of itself."""
        return self.checkpoint.spec

    @property
    def lookaheads(self) -> tuple[int | None, ...]:
        """Those of the checkpoint's that the artifact serves, in its order."""
        return tuple(lookahead for lookahead in self.spec.lookaheads if lookahead in self.artifact.lookaheads)

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
        session = open_session(self.artifact, self.provider, self.threads)
        return CorpusRunner.open(self.artifact, FiniteSession(session))

    @cached_property
    def judge_digest(self) -> str:
        package = Path(nemoport.__file__).parent
        files = [package / f"{name}.py" for name in RUN_BY]
        for folder in (*(package / name for name in RUN_BY_FOLDERS), Path(__file__).parent):
            files += sorted(folder.rglob("*.py"))
        return digest_json(
            [[sha256_file(f) for f in files], self.provider, runtime_version(self.limits.target), version("jiwer")]
        )

    def stamp(self, result: GateResult) -> GateResult:
        """Writes into a result what it was judged with."""
        return replace(
            result,
            limits_sha256=limits_digest(),
            oracle_digest=self.oracle.digest,
            judge_digest=self.judge_digest,
        )

    def run(self, lookahead: int | None, streams: int | None = None, every: int = 1) -> dict[str, tuple[UtteranceRun, ...]]:
        """The corpus, or every so manieth utterance of it, at one lookahead, by both flush rules; see CorpusRunner."""
        if not self.corpus.utterances:
            raise CorpusError(
                "There is nothing to judge the artifact on.",
                expected="utterances",
                found="an empty corpus",
                todo="check CORPUS",
            )
        streams = streams or self.limits.streams
        key = (lookahead, streams, every)
        if key not in self._runs:
            part = replace(self.corpus, utterances=self.corpus.utterances[::every])
            where = f"{self.variant}: {context_name(lookahead)}, {streams} at once"
            shown_s = time.monotonic()

            def show(seconds: float) -> None:
                nonlocal shown_s
                if time.monotonic() - shown_s >= PROGRESS_SECONDS:
                    shown_s = time.monotonic()
                    self.progress(f"{where}: {seconds:.0f} of {part.seconds:.0f} s of audio")

            self._runs[key] = self.runner.run(part, lookahead, streams, show)
        return self._runs[key]

    def compared(self) -> list[tuple[int | None, str, tuple[UtteranceRun, ...], tuple[Record, ...]]]:
        """(lookahead, flush rule, what was heard, what NeMo heard), wherever NeMo has something to compare with."""
        return [
            (lookahead, flush, self.run(lookahead)[flush], expected)
            for lookahead in self.lookaheads
            for flush in flush_rules(self.spec)
            if (expected := self.oracle.expected(lookahead, flush)) is not None
        ]

    def longform(self, lookahead: int | None) -> list[tuple[LongForm, Record]]:
        """The evaluation speech as one long recording, and NeMo's run of it; for an offline model, as many as it takes of the
        longest that it hears at once."""
        minutes = self.limits.get("longform", "minutes")
        longest = min(minutes, OFFLINE_MINUTES) if lookahead is None else minutes
        numbers = range(math.ceil(minutes / longest))
        forms = [make_longform(self.corpus, longest, self.folder.parent, self.prompt_language, number) for number in numbers]
        return [(form, self.nemo_reference(form.corpus, lookahead)[0]) for form in forms]

    @property
    def prompt_language(self) -> str:
        """The prompt of a recording in all languages of the corpus; "" of a model without a prompt."""
        if self.spec.prompt is None:
            return ""
        return AUTO if AUTO in self.spec.prompt.languages else self.corpus.utterances[0].prompt_language

    def nemo_reference(self, corpus: Corpus, lookahead: int | None) -> tuple[Record, ...]:
        """NeMo's run of other audio, in the mode that `last_rule` is compared with."""
        mode = OFFLINE if lookahead is None else STREAMING
        return record_runs(self.checkpoint, corpus, [(mode, lookahead)], self.folder.parent, self.progress).runs[mode, lookahead]

    @property
    def last_rule(self) -> str:
        return flush_rules(self.spec)[-1]

    def product(self) -> list[tuple[int | None, tuple[UtteranceRun, ...], tuple[Record, ...]]]:
        """(lookahead, heard, NeMo): by the product's flush rule, "full"; at lookahead 0, where only NeMo's streaming
        can be compared with, by "nemo"."""
        best = {lookahead: (heard, record) for lookahead, flush, heard, record in self.compared() if flush == "nemo"}
        best |= {lookahead: (heard, record) for lookahead, flush, heard, record in self.compared() if flush == "full"}
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
        """limit: the name of the limit in gates.toml, None for a figure that is only recorded."""
        bound = self.limits.get(gate, limit) if limit else None
        status = within(measured, bound, at_least=at_least, n=n)
        return GateResult(gate, self.variant, self.sha256, status, case, float(measured), bound, unit, n, interval, evidence)
