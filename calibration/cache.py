"""Calibration runs kept on disk: reused when nothing changed, taken up where they stopped after a kill.

build/<checkpoint>/calibration/<digest>/
    calibration.json    what was run: parent, corpus, parameters; the sha256 of every recording heard
    state.npz           streams done and all that was collected from them, replaced as a whole
    summary.json        what was collected of each tensor, for people; written when all streams are done
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nemoport.artifact import Artifact
from nemoport.calibration.gram import GramCollector
from nemoport.calibration.probe import Probe, ProbedSession
from nemoport.calibration.ranges import RangeCollector
from nemoport.calibration.samples import SampleCollector
from nemoport.calibration.stream import CalibrationStreams
from nemoport.errors import ArtifactError
from nemoport.files import digest_json, write_bytes, write_json
from nemoport.spec import context_name

Progress = Callable[[str], None]  # told what is being done, a line at a time
Collector = RangeCollector | SampleCollector | GramCollector


@dataclass(frozen=True)
class Calibration:
    folder: Path
    digest: str
    corpus_digest: str
    collector: Collector


def calibrate(
    parent: Artifact,
    streams: CalibrationStreams,
    tensors: list[str],
    root: Path | None = None,
    *,
    progress: Progress,
    collect: type[Collector] = RangeCollector,
    threads: int | None = None,
    save_every: int = 2,
) -> Calibration:
    """Runs the streams through the parent's encoder and shows `tensors` to a collector.

    root: where calibration folders stand, one a digest of all inputs; by default in the parent's build. Saves after
    `save_every` streams. Raises CorpusError, ArtifactError (the saved state is damaged), OutputError.
    """
    inputs = {
        "parent_digest": parent.manifest.digest,
        "corpus_digest": streams.corpus.digest,
        "streams": asdict(streams.parameters),
        **collect.settings,
        "tensors": tensors,
    }
    digest = digest_json(inputs)
    folder = (root or parent.folder.parent / "calibration") / digest[:16]
    collector, done = _read_state(folder / "state.npz", collect, tensors)
    if not done:
        audio = [u.sha256 for u in streams.corpus.utterances]
        write_json(folder / "calibration.json", {**inputs, "digest": digest, "audio_sha256": audio})
    plans = streams.plans
    if done < len(plans):
        session = ProbedSession(parent, Probe(parent.encoder, tensors, threads=threads))
        for i in range(done, len(plans)):
            progress(f"calibration: stream {i + 1} of {len(plans)}, {context_name(plans[i].lookahead)}")
            for wanted in streams.run(session, plans[i]):
                if wanted:
                    collector.update(session.encoder.values)
            if (i + 1) % save_every == 0 or i + 1 == len(plans):
                _write_state(folder / "state.npz", collector, i + 1)
    if not (folder / "summary.json").is_file():
        write_json(folder / "summary.json", collector.summary())
    return Calibration(folder, digest, streams.corpus.digest, collector)


def _read_state(path: Path, collect: type[Collector], tensors: list[str]) -> tuple[Collector, int]:
    if not path.is_file():
        return collect(tensors), 0
    try:
        with np.load(path) as arrays:
            return collect.from_arrays(arrays), int(arrays["streams_done"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"{path} is damaged.",
            expected="the saved state of a calibration run",
            found=f"{type(error).__name__}: {error}",
            todo=f"remove {path.parent} and calibrate again",
        ) from error


def _write_state(path: Path, collector: Collector, streams_done: int) -> None:
    content = io.BytesIO()
    np.savez(content, streams_done=np.int64(streams_done), **collector.to_arrays())
    write_bytes(path, content.getvalue())
