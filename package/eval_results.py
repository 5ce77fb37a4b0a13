"""`.eval_results/*.yaml` of a package: what the Hub shows on the model's page and on the leaderboard of a data set.

They fit a benchmark that is registered on the Hub, when the gates ran on it, whole. Figures of a private test set do not fit: the
card has them.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from nemoport.errors import UsageError
from nemoport.hub_id import split_hub_id
from nemoport.package.layout import CardFacts
from nemoport.spec import context_name

FOLDER = ".eval_results"
_NAME = re.compile(r"[\w.-]{1,100}")


@dataclass(frozen=True)
class Benchmark:
    """A task of a data set on the Hub, as its eval.yaml names it. revision: of the data set, "" where it is not stated."""

    dataset: str
    task: str
    revision: str = ""

    @staticmethod
    def of(dataset: str | None, task: str | None) -> Benchmark | None:
        """Reads organisation/name, or with @revision, and the id of a task; None where neither is named. Raises UsageError."""
        if not dataset and not task:
            return None
        repo, revision = split_hub_id(dataset or "") or ("", "")
        if not repo or not _NAME.fullmatch(task or ""):
            raise UsageError(
                "This does not name a benchmark of the Hub.",
                expected="--eval-dataset organisation/name, a data set with an eval.yaml, and --task-id, one of its tasks",
                found=f"{dataset or 'no data set'}, {task or 'no task'}",
                todo="name both, or leave both out: figures of your own test set do not fit there, and are in the card",
            )
        return Benchmark(repo, task or "", revision)

    @property
    def path(self) -> str:
        """Path of the file in the package."""
        return f"{FOLDER}/{self.dataset.partition('/')[2]}.yaml"


def eval_results(benchmark: Benchmark, facts: CardFacts) -> str:
    """Returns the file: of each variant the word error rate in percent at the largest lookahead, or of whole recordings, where it
    was measured. Raises UsageError where no variant has a figure."""
    case = context_name(max((one for one in facts.lookaheads if isinstance(one, int)), default=None))
    rows = []
    for variant, found in facts.figures.items():
        rate = found.find("wer", f"{case}: WER")
        if rate is None or not math.isfinite(rate.value):
            continue
        revision = [f"    revision: {json.dumps(benchmark.revision)}"] if benchmark.revision else []
        notes = f"{variant}, {case}, {rate.result.n} utterances, nemoport's normaliser"
        rows += [
            "- dataset:",
            f"    id: {json.dumps(benchmark.dataset)}",
            f"    task_id: {json.dumps(benchmark.task)}",
            *revision,
            f"  value: {round(rate.value, 4)}",
            f"  notes: {json.dumps(notes)}",
        ]
    if not rows:
        raise UsageError(
            "There is no word error rate for the Hub.",
            expected=f"the figure of the gate `wer` at {case}",
            found=f"none for {', '.join(facts.figures)}",
            todo="run `nemoport validate` on the benchmark first, or leave --eval-dataset and --task-id out",
        )
    return "\n".join(rows) + "\n"
