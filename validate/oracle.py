"""Records NeMo's own runs over a corpus, once per checkpoint, corpus, NeMo version and recording code."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from typing_extensions import TypedDict  # pydantic reads those of `typing` from Python 3.12 on

from nemoport.buffered import ChunkContext
from nemoport.errors import ArtifactError, UsageError
from nemoport.export.checkpoint import Checkpoint
from nemoport.files import digest_json, exclusive_lock, read_json, sha256_file, sweep_leftovers, write_bytes, write_json
from nemoport.progress import Progress, Step, silent, step
from nemoport.schema import Sha256, check, most, whole
from nemoport.spec import Lookahead, ModelSpec, context_name
from nemoport.speech.corpus import Corpus, Utterance, prompts
from nemoport.validate import nemo, nemo_buffered, nemo_config, nemo_runs
from nemoport.validate.modes import BUFFERED, OFFLINE, STREAMING, mode_of, run_name
from nemoport.validate.nemo_process import corpus_rows, in_nemo

BATCH_UTTERANCES = 16  # utterances that stream in one batch
EVENLY_SPACED_SAMPLES = 32  # encoder frames kept of an utterance, besides those of its first and last chunk


@dataclass(frozen=True)
class Record:
    """What is kept of a run of one utterance.

    token_frames: encoder frame of each token; sampled_frames: f32 [k, d_model], the encoder frames at `sample_positions`.
    """

    tokens: tuple[int, ...]
    token_frames: tuple[int, ...]
    text: str
    enc_frames: int
    sampled_frames: np.ndarray


Position = Annotated[int, whole(0, 10_000_000)]


class _Utterance(TypedDict):
    sha256: Sha256
    text: Annotated[str, most(10_000_000)]
    tokens: list[Position]
    token_frames: list[Position]
    enc_frames: Position


class _Run(TypedDict):
    """A recorded run on disk, beside its frames in the .npz file of the same name."""

    frames_sha256: Sha256
    utterances: list[_Utterance]


@dataclass(frozen=True)
class Oracle:
    """NeMo's runs over one corpus: (mode, lookahead) -> one record an utterance, in the corpus's order."""

    digest: str
    folder: Path
    runs: dict[tuple[str, Lookahead], tuple[Record, ...]]

    def expected(self, lookahead: Lookahead, flush: str) -> tuple[Record, ...] | None:
        """Records that a run by a flush rule of nemoport.chunker is compared with; None where NeMo has no such run.

        "nemo" reproduces NeMo's streaming buffer; "full" encodes every frame, as NeMo's offline run does. At lookahead
        0 NeMo's streaming differs from its offline run by itself.
        """
        return self.runs.get((STREAMING if flush == "nemo" else mode_of(lookahead, OFFLINE), lookahead))


def sample_positions(enc_frames: int, lookahead: Lookahead) -> np.ndarray:
    """Positions of the encoder frames that are kept of a run of `enc_frames`: i64 [k], ascending.

    Those of the first and of the last chunk (of an offline run the first and last 16), which a wrong edge or a wrong mask
    changes, and 32 evenly spaced ones.
    """
    chunk = lookahead + 1 if isinstance(lookahead, int) else 16
    even = np.linspace(0, max(enc_frames - 1, 0), EVENLY_SPACED_SAMPLES).astype(np.int64)
    positions = np.concatenate([np.arange(chunk), even, np.arange(enc_frames - chunk, enc_frames)])
    return np.unique(positions[(positions >= 0) & (positions < enc_frames)])


def oracle_digest(checkpoint: Checkpoint, corpus: Corpus) -> str:
    """Digest of everything that the records depend on, the code that makes them included."""
    modules = (__file__, nemo.__file__, nemo_buffered.__file__, nemo_config.__file__, nemo_runs.__file__)
    code = [sha256_file(Path(module)) for module in modules]
    streaming = checkpoint.spec.streaming
    profile = [] if streaming is None or streaming.attention_lookahead is None else [streaming.attention_lookahead]
    head = [checkpoint.spec.head] if checkpoint.hybrid else []  # the file is the same for both
    return digest_json([checkpoint.sha256, corpus.digest, code, version("nemo_toolkit"), version("torch"), *profile, *head])


def record_oracle(checkpoint: Checkpoint, corpus: Corpus, build: Path, progress: Progress = silent) -> Oracle:
    """Runs NeMo over the corpus at every lookahead: streaming, and offline too where the lookahead is 1 or more. An offline
    model is run offline only, a buffered one also by its windows.

    Raises as `record_runs`.
    """
    lookaheads = checkpoint.spec.lookaheads
    wanted = [(mode_of(r), r) for r in lookaheads]
    wanted += [(OFFLINE, r) for r in lookaheads if isinstance(r, int) and r >= 1]
    return record_runs(checkpoint, corpus, wanted, build, progress)


def record_runs(
    checkpoint: Checkpoint,
    corpus: Corpus,
    wanted: Sequence[tuple[str, Lookahead]],
    build: Path,
    progress: Progress = silent,
) -> Oracle:
    """Runs NeMo over the corpus by each (mode, lookahead) in `wanted`.

    Runs that build/oracle/<digest>/ holds already are read; each other one is written there when it is complete. Raises
    CheckpointError if NeMo cannot restore the checkpoint, ArtifactError for a damaged record, OutputError.
    """
    sweep_leftovers(build)
    digest = oracle_digest(checkpoint, corpus)
    folder = build / "oracle" / digest[:16]
    names = {run_name(mode, lookahead): (mode, lookahead) for mode, lookahead in wanted}

    def missing() -> list[str]:
        return [name for name in names if not (folder / f"{name}.json").is_file()]

    if missing():
        with exclusive_lock(folder / "recording"):  # processes that judge variants at the same time need the same runs
            if todo := missing():
                _record_all(checkpoint, corpus, [names[name] for name in todo], folder, progress)
    width = checkpoint.spec.encoder.d_model
    runs = {run: _read(folder / f"{name}.json", corpus, run[1], width) for name, run in names.items()}
    return Oracle(digest, folder, runs)


def _record_all(
    checkpoint: Checkpoint, corpus: Corpus, wanted: Sequence[tuple[str, Lookahead]], folder: Path, progress: Progress
) -> None:
    """Lets NeMo record runs in a process of its own, and keeps each that is complete."""
    names = {run_name(*run) for run in wanted}
    task = {"task": "record", "wanted": list(wanted), "corpus": str(corpus.path), "utterances": corpus_rows(corpus)}
    with in_nemo(checkpoint, task, progress) as results:
        for name, place in results:
            if name in names:
                write_bytes(folder / f"{name}.npz", (place / f"{name}.npz").read_bytes())
                write_json(folder / f"{name}.json", read_json(place / f"{name}.json", "record the oracle again"))


def record_in_nemo(checkpoint: Checkpoint, task: dict[str, Any], folder: Path, progress: Progress) -> Iterator[str]:
    """Runs NeMo in this process, for `_record_all`: writes each run into `folder` and yields its name. Raises CheckpointError."""
    rows = (Utterance(**{**row, "path": Path(row["path"])}) for row in task["utterances"])
    corpus = Corpus(Path(task["corpus"]), tuple(rows))
    with step(f"oracle: restoring {checkpoint.path.name} in NeMo", progress):
        model = nemo.restore(checkpoint)
    for mode, read in task["wanted"]:
        lookahead = ChunkContext(*read) if mode == BUFFERED else read
        _record(model, checkpoint.spec, corpus, mode, lookahead, folder / f"{run_name(mode, lookahead)}.json", progress)
        yield run_name(mode, lookahead)


def _record(model: Any, spec: ModelSpec, corpus: Corpus, mode: str, lookahead: Lookahead, path: Path, progress: Progress) -> None:
    results: list[nemo_runs.NemoRun] = []
    seconds, slots = 0.0, prompts(corpus, spec)
    name = f"oracle: {mode}, {context_name(lookahead)}"
    progress(Step(name, 0, corpus.seconds, "s of audio"))
    with nemo.exact(model), nemo.quiet():
        for at in range(0, len(corpus.utterances), BATCH_UTTERANCES):
            group = corpus.utterances[at : at + BATCH_UTTERANCES]
            results += _run(model, spec, group, slots[at : at + BATCH_UTTERANCES], mode, lookahead)
            seconds += sum(u.seconds for u in group)
            progress(Step(name, seconds, corpus.seconds, "s of audio"))
    samples = [run.frames[sample_positions(len(run.frames), lookahead)] for run in results]
    packed = io.BytesIO()
    np.savez(packed, frames=np.concatenate(samples))
    write_bytes(path.with_suffix(".npz"), packed.getvalue())
    utterances = [
        {
            "id": utterance.id,
            "sha256": utterance.sha256,
            "text": run.text,
            "tokens": run.tokens,
            "token_frames": run.token_frames,
            "enc_frames": len(run.frames),
        }
        for utterance, run in zip(corpus.utterances, results, strict=True)
    ]
    frames_sha256 = sha256_file(path.with_suffix(".npz"))
    write_json(path, {"mode": mode, "lookahead": lookahead, "frames_sha256": frames_sha256, "utterances": utterances})


def _run(
    model: Any, spec: ModelSpec, group: Sequence[Utterance], slots: Sequence[int | None], mode: str, lookahead: Lookahead
) -> list[nemo_runs.NemoRun]:
    audio = [utterance.samples() for utterance in group]
    if isinstance(lookahead, ChunkContext):
        return [nemo_buffered.stream(model, samples, lookahead) for samples in audio]
    within = spec.streaming.attention_lookahead if spec.streaming else None
    if mode == OFFLINE:
        pairs = zip(audio, slots, strict=True)
        return [nemo_runs.offline(model, samples, lookahead, slot, within, spec.events) for samples, slot in pairs]
    if lookahead is None:
        todo = "record it offline"
        raise UsageError("An offline model has no streaming run.", expected="a lookahead", found="none", todo=todo)
    languages = [spec.prompt.name(slot) for slot in slots if slot is not None] if spec.prompt else None
    return nemo_runs.stream(model, audio, lookahead, languages, within, spec.events)


def _read(path: Path, corpus: Corpus, lookahead: Lookahead, width: int) -> tuple[Record, ...]:
    """width: of an encoder frame."""
    todo = f"remove {path.parent} and record the oracle again"
    raw, packed = check(_Run, read_json(path, todo), str(path), todo), path.with_suffix(".npz")
    counts = [len(sample_positions(u["enc_frames"], lookahead)) for u in raw["utterances"]]
    frames = _frames(packed, sum(counts), width) if packed.is_file() else None
    known = frames is not None and sha256_file(packed) == raw["frames_sha256"]
    if frames is None or not known or [u["sha256"] for u in raw["utterances"]] != [u.sha256 for u in corpus.utterances]:
        raise ArtifactError(
            f"The recorded oracle {path} is damaged.",
            expected="the encoder frames and the utterances that it was recorded with",
            found="other ones" if packed.is_file() else f"no {packed.name}",
            todo=todo,
        )
    parts = np.split(frames, np.cumsum(counts)[:-1])
    return tuple(
        Record(tuple(u["tokens"]), tuple(u["token_frames"]), u["text"], u["enc_frames"], part)
        for u, part in zip(raw["utterances"], parts, strict=True)
    )


def _frames(packed: Path, count: int, width: int) -> np.ndarray | None:
    """Reads f32 [count, width] of an .npz file; None where it holds something else."""
    try:
        if packed.stat().st_size < 4 * count * width:  # a compressed one could have any size when it is read
            return None
        with np.load(packed) as arrays:  # refuses what holds a pickle
            frames = arrays["frames"]
    # RuntimeError: an entry that claims to be encrypted, or packed in a way that is not known
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, MemoryError):
        return None
    return frames if (frames.shape, frames.dtype) == ((count, width), np.float32) else None
