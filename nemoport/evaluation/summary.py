"""Counts and times of results: real-time factors, and what an hour of audio costs."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import numpy as np

from nemoport.evaluation.transcriber import Record


class Summary:
    """Takes records one by one; holds two numbers of each. failed: errors by id, the first MOST_NAMED."""

    MOST_NAMED = 1000

    def __init__(self) -> None:
        self.utterances = self.failures = 0
        self.audio_s = self.work_s = self.processor_s = 0.0
        self.failed: dict[str, str] = {}
        self._factors, self._seconds = array("d"), array("d")
        self._workers: set[str] = set()
        self._instruction_sets: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Counts a record. Failed ones are in no time."""
        self.utterances += 1
        if "error" in record:
            self.failures += 1
            if self.failures <= self.MOST_NAMED:
                self.failed[record["id"]] = record["error"]
            return
        self.audio_s += record["audio_seconds"]
        self.work_s += record["work_seconds"]
        self.processor_s += record["processor_seconds"]
        self._seconds.append(record["work_seconds"])
        self._factors.append(record["work_seconds"] / record["audio_seconds"])
        self._workers.add(record["worker"])
        self._instruction_sets[record["instruction_set"]] += 1

    def described(self) -> dict[str, Any]:
        """Returns what summary.json holds. real_time_factor: work by audio, of all and of single utterances; work_seconds:
        of single utterances; processor_seconds_per_hour: of the workers' processors, for an hour of audio."""
        hours = self.audio_s / 3600
        return {
            "utterances": self.utterances,
            "failed": self.failures,
            "errors": self.failed,
            "audio_seconds": round(self.audio_s, 3),
            "work_seconds": {"all": round(self.work_s, 3), **_percentiles(self._seconds)},
            "processor_seconds_per_hour": round(self.processor_s / hours, 3) if hours else None,
            "real_time_factor": {"all": round(self.work_s / self.audio_s, 6) if hours else None, **_percentiles(self._factors)},
            "workers": len(self._workers),
            "instruction_sets": dict(sorted(self._instruction_sets.items())),
        }


def _percentiles(values: array) -> dict[str, float | None]:
    if not values:
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(np.frombuffer(values), [50, 95])
    return {"p50": round(float(p50), 6), "p95": round(float(p95), 6)}
