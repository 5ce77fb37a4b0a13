"""Runs an artifact over a data set, goes on where a run was stopped, and merges the results of several machines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.evaluation.identity import FILE, Identity, Settings
from nemoport.evaluation.item import Item, Shard, key
from nemoport.evaluation.local import LocalEngine
from nemoport.evaluation.on_ray import RayEngine
from nemoport.evaluation.pool import Engine, Pool
from nemoport.evaluation.results import JOURNAL, Journal, complete_records, exclusive, line_of, write_ordered
from nemoport.evaluation.sources import DataSet
from nemoport.evaluation.summary import Summary
from nemoport.evaluation.transcriber import Opening
from nemoport.hub_package import variant_folder
from nemoport.progress import Progress, Step, silent, step

SPOOL = "spool"  # folder of the results where recordings of a streamed data set are while they are needed
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Workers:
    """Where and how many. engine: one of ENGINES; count: 0 for one for each `threads` processors; address: of a Ray cluster,
    None: one that is started here; pack: utterances of a call of Ray."""

    engine: str = "local"
    count: int = 0
    address: str | None = None
    pack: int = 8

    def open(self, opening: Opening) -> tuple[Engine, int]:
        """Returns the engine and the number of its workers. Raises UsageError."""
        if self.engine not in ENGINES or self.count < 0 or self.pack < 1:
            expected, found = f"one of {', '.join(ENGINES)}, with one worker or more", f"{self.engine}, {self.count}"
            raise UsageError("These workers do not exist.", expected=expected, found=found, todo="correct the options")
        threads = max(1, opening.settings.threads)
        if self.engine == "local":
            return LocalEngine(opening), self.count or max(1, available_cpus() // threads)
        engine = RayEngine(opening, self.address, cpus=(self.count or available_cpus()) * threads, pack=self.pack)
        return engine, self.count or max(1, engine.cpus() // threads)


def available_cpus() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def evaluate(
    place: str,
    open_data: Callable[[Artifact], DataSet],
    output: Path,
    settings: Settings | None = None,
    *,
    variant: str | None = None,
    shard: Shard | None = None,
    workers: Workers | None = None,
    retry_failed: bool = False,
    progress: Progress = silent,
) -> Summary:
    """Transcribes what is not done yet, and writes the results into `output`, see nemoport/evaluation/results.py.

    place, variant: of the artifact, as `nemoport.hub_package.variant_folder` takes them; open_data: opens the data set; shard:
    the part of it that is transcribed here; retry_failed: try utterances again that failed. Raises UsageError for results of
    something else in `output` and where another process writes there, ArtifactError, CorpusError, OutputError, ResourceError.

    A script that calls it needs `if __name__ == "__main__":`, because its workers import the script.
    """
    settings, shard, workers = settings or Settings(), shard or Shard(), workers or Workers()
    folder = variant_folder(place, variant)
    if not variant and folder != Path(place).expanduser():
        progress(f"evaluate: variant {folder.name}; --variant names another")
    artifact = Artifact.open(folder)
    data = open_data(artifact)
    identity = Identity.of(artifact, settings.open(folder), settings, data, str(shard))
    with exclusive(output):
        if (output / FILE).exists():
            identity.check_same(Identity.read(output), output)
        else:
            identity.write(output)
        journal = Journal(output, retry_failed=retry_failed)
        try:
            opening = _opening(place, variant, folder, settings, identity, workers)
            _transcribe(data, shard, journal, workers, opening, progress)
        finally:
            journal.close()
            shutil.rmtree(output / SPOOL, ignore_errors=True)
        return write_ordered(output)


def merge(folders: Sequence[Path], output: Path) -> Summary:
    """Merges complete results of the shards of one data set to those that one run of it would have written.

    Raises UsageError for results of other artifacts, options, versions or data, for shards that are missing, and for two texts
    of one utterance; ArtifactError for results that are not complete.
    """
    identities = [Identity.read(folder) for folder in folders]
    for folder, identity in zip(folders[1:], identities[1:], strict=True):
        identities[0].check_same(identity, folder, shard=False)
    _check_all_there([Shard.parse(identity.shard) for identity in identities])
    with exclusive(output):
        if (output / FILE).exists() or (output / JOURNAL).exists():
            raise UsageError(f"{output} has results.", expected="a new folder", found=FILE, todo="name another one")
        known: dict[bytes, bytes] = {}
        with open(output / JOURNAL, "wb") as stream:
            for folder in folders:
                for record, times in complete_records(folder):
                    line = line_of(record)
                    if known.setdefault(key(record["id"]), key(line.decode())) != key(line.decode()):
                        what = f"{folder} has another result of {record['id']} than a folder before it."
                        raise UsageError(what, expected="one result of each", found="two", todo="leave out one of the folders")
                    stream.write(line_of(record | times))
        replace(identities[0], shard=str(Shard())).write(output)
        return write_ordered(output)


def _check_all_there(shards: Sequence[Shard]) -> None:
    count = shards[0].count
    missing = sorted({*range(1, count + 1)} - {shard.number for shard in shards})
    if missing or any(shard.count != count for shard in shards):
        raise UsageError(
            "These are not all shards of the data set.",
            expected=f"1/{count} to {count}/{count}",
            found=", ".join(map(str, shards[:10])),
            todo=f"name the results of {missing[0]}/{count} too" if missing else "name shards of one division",
        )


def _opening(place: str, variant: str | None, folder: Path, settings: Settings, identity: Identity, workers: Workers) -> Opening:
    """A Hub package is fetched by each machine of a cluster; a folder is at the same place on all."""
    local = workers.engine == "local" or Path(place).expanduser().exists()
    where = (str(folder.absolute()), None) if local else (place, variant)
    return Opening(*where, settings, identity.artifact, identity.versions)


def _transcribe(data: DataSet, shard: Shard, journal: Journal, workers: Workers, opening: Opening, progress: Progress) -> None:
    def waiting() -> Iterator[Item]:
        for item in data.items():
            if item.id in shard and key(item.id) not in journal.done:
                yield item
            else:
                data.release(item)

    items = waiting()
    first = next(items, None)
    if first is None:
        return
    if workers.engine == "ray" and data.count is not None and Path(first.path).is_file():
        opening = replace(opening, probe=first.path)
    total = None if data.count is None else sum(item.id in shard for item in data.items())
    engine, count = workers.open(opening)
    with step("evaluate", progress) if total is None else nullcontext():
        try:
            for item, record in Pool(engine, count, chain([first], items), progress).run():
                journal.add(record)
                data.release(item)
                if total is not None:
                    progress(Step("evaluate", len(journal.done), total, "utterances"))
        finally:
            engine.close()
