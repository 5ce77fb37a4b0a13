"""Figures of a server for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self):
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        kept = {"registry": self.registry, "namespace": "nemoport"}
        seconds = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
        self.sessions = Gauge("sessions", "Live sessions now", ["model"], **kept)
        self.opened = Counter("sessions_opened", "Live sessions that have begun", ["model"], **kept)
        self.closed = Counter("sessions_closed", "Live sessions that have ended, by the reason", ["reason"], **kept)
        self.audio = Counter("audio_seconds", "Audio that live sessions received", ["model"], **kept)
        self.uploads = Counter("transcriptions", "Recordings, by the HTTP status of the answer", ["status"], **kept)
        self._batches = Histogram(
            "batch_streams", "Streams of one run of the encoder", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64, 128), **kept
        )
        self._runs = Histogram("batch_seconds", "Time of one run: encoder and decoding", ["model"], buckets=seconds, **kept)
        self._latency = Histogram(
            "chunk_latency_seconds", "From the packet that completes a chunk to its events", ["model"], buckets=seconds, **kept
        )

    def batch(self, model: str, streams: int, seconds: float) -> None:
        """Counts a run of the encoder."""
        self._batches.labels(model).observe(streams)
        self._runs.labels(model).observe(seconds)

    def latency(self, model: str, seconds: float) -> None:
        """Counts a chunk."""
        self._latency.labels(model).observe(seconds)

    def families(self) -> list[Any]:
        """Returns all as they are now."""
        return list(self.registry.collect())


def as_text(families: Mapping[str, Sequence[Any]]) -> bytes:
    """Returns the figures of replicas, by their names, in Prometheus' text format. A name that is "" is no label."""
    from prometheus_client import generate_latest

    merged: dict[str, Any] = {}
    for replica, some in families.items():
        for family in some:
            label = {"replica": replica} if replica else {}
            samples = [sample._replace(labels=sample.labels | label) for sample in family.samples]
            if family.name not in merged:
                merged[family.name] = copy(family)
                merged[family.name].samples = []
            merged[family.name].samples += samples
    return generate_latest(_Collected(merged.values()))  # type: ignore[arg-type]  # it asks for `collect` alone


class _Collected:
    def __init__(self, families: Iterable[Any]):
        self._families = families

    def collect(self) -> Iterable[Any]:
        return self._families
