"""Calibration runs kept on disk: reused when no input changed, resumed where they stopped after a kill.

build/<checkpoint>/calibration/<digest>/
    calibration.json    what was run: parent, corpus, parameters; the sha256 of every recording
    state.npz           number of streams done and all that was collected from them, replaced as a whole
    summary.json        what was collected of each tensor, for people to read; written when all streams are done
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np

from nemoport.artifact import Artifact
from nemoport.calibration.probe import Probe, ProbedSession
from nemoport.calibration.stream import TOGETHER, CalibrationStreams
from nemoport.errors import ArtifactError
from nemoport.files import digest_json, scratch_folder, write_json
from nemoport.progress import Progress, Step


class Collector(Protocol):
    """Statistics of named tensors, gathered chunk by chunk. settings: what else the figures depend on, for the digest."""

    settings: ClassVar[Mapping[str, Any]]

    def __init__(self, tensors: Sequence[str]): ...

    def update(self, values: Mapping[str, np.ndarray]) -> None:
        """Adds one chunk. values: f32 by tensor name, all of them."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The whole state, for `numpy.savez`; the inverse of `from_arrays`."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self: ...

    def summary(self) -> dict[str, Any]:
        """Tensor -> a few figures of it, as JSON takes them."""
        ...


C = TypeVar("C", bound=Collector)


@dataclass(frozen=True)
class Calibration(Generic[C]):
    """A finished calibration run: where it is kept, the digests of its inputs and of its corpus, and what it collected."""

    folder: Path
    digest: str
    corpus_digest: str
    collector: C


def calibrate(
    parent: Artifact,
    streams: CalibrationStreams,
    tensors: list[str],
    root: Path | None = None,
    *,
    progress: Progress,
    collect: type[C],
    threads: int | None = None,
    save_every: int = 2,
    together: bool = False,
) -> Calibration[C]:
    """Runs the streams through the parent's encoder and collects statistics of `tensors` of its graph, by their names.

    root: the folder of calibration folders, each named by the digest of all inputs; by default in the parent's build.
    collect: the class of the collector. threads: as of `Probe`. The state is saved after every `save_every` streams. together:
    run them in batches (`CalibrationStreams.together`), which takes a third of the time; a batch counts as one stream.
    Raises CorpusError, ArtifactError (the saved state is damaged), OutputError.
    """
    inputs = {
        "parent_digest": parent.manifest.digest,
        "corpus_digest": streams.corpus.digest,
        "streams": asdict(streams.parameters),
        **collect.settings,
        "tensors": tensors,
        **({"together": TOGETHER} if together else {}),
    }
    digest = digest_json(inputs)
    folder = (root or parent.folder.parent / "calibration") / digest[:16]
    collector, done = _read_state(folder / "state.npz", collect, tensors)
    if not done:
        audio = [u.sha256 for u in streams.corpus.utterances]
        write_json(folder / "calibration.json", {**inputs, "digest": digest, "audio_sha256": audio})
    batches, unit = (streams.together, "batches") if together else ([[plan] for plan in streams.plans], "streams")
    if done < len(batches):
        session = ProbedSession(parent, Probe(parent.encoder, tensors, threads=threads))
        for i in range(done, len(batches)):
            progress(Step("calibration", i, len(batches), unit))
            for is_collected in streams.run_together(session, batches[i]):
                if is_collected:
                    collector.update(session.encoder.values)
            if (i + 1) % save_every == 0 or i + 1 == len(batches):
                _write_state(folder / "state.npz", collector, i + 1)
        progress(Step("calibration", len(batches), len(batches), unit))
    if not (folder / "summary.json").is_file():
        write_json(folder / "summary.json", collector.summary())
    return Calibration(folder, digest, streams.corpus.digest, collector)


def _read_state(path: Path, collect: type[C], tensors: list[str]) -> tuple[C, int]:
    if not path.is_file():
        return collect(tensors), 0
    try:
        with np.load(path) as arrays:
            return collect.from_arrays(arrays), int(arrays["streams_done"])
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(
            f"{path} is damaged.",
            expected="the saved state of a calibration run",
            found=f"{type(error).__name__}: {error}",
            todo=f"remove {path.parent} and calibrate again",
        ) from error


def _write_state(path: Path, collector: Collector, streams_done: int) -> None:
    arrays: dict[str, Any] = {"streams_done": np.int64(streams_done), **collector.to_arrays()}
    with scratch_folder(path.parent) as scratch:
        with open(scratch / path.name, "wb") as stream:  # not in memory: the state may be gigabytes
            np.savez(stream, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch / path.name, path)
