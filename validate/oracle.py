"""What NeMo itself hears on a corpus, recorded once per checkpoint, corpus, NeMo version and recording code."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from nemoport.errors import ArtifactError
from nemoport.export.checkpoint import Checkpoint
from nemoport.files import digest_json, exclusive_lock, read_json, sha256_file, write_bytes, write_json
from nemoport.spec import ModelSpec, context_name
from nemoport.speech.corpus import Corpus, prompts
from nemoport.validate import nemo, nemo_runs

STREAMING, OFFLINE = "streaming", "offline"
BATCH_UTTERANCES = 16  # utterances that stream in one batch
EVENLY_SPACED_SAMPLES = 32  # encoder frames kept of an utterance, besides its first and last chunk


@dataclass(frozen=True)
class Record:
    """One utterance of one run. sampled_frames: f32 [k, d_model], the encoder frames at `sample_positions(...)`."""

    tokens: tuple[int, ...]
    token_frames: tuple[int, ...]
    text: str
    enc_frames: int
    sampled_frames: np.ndarray


@dataclass(frozen=True)
class Oracle:
    """NeMo's runs: (mode, lookahead) -> one record an utterance, in the corpus's order."""

    digest: str
    folder: Path
    runs: dict[tuple[str, int | None], tuple[Record, ...]]

    def expected(self, lookahead: int | None, flush: str) -> tuple[Record, ...] | None:
        """What a run by a flush rule of nemoport.stream must give; None where NeMo has nothing to compare with.

        "nemo" reproduces NeMo's streaming buffer; "full" encodes every frame, as NeMo's offline run does. At lookahead
        0 NeMo's streaming differs from its offline run by itself.
        """
        return self.runs.get((STREAMING if flush == "nemo" else OFFLINE, lookahead))


def sample_positions(enc_frames: int, lookahead: int | None) -> np.ndarray:
    """i64 [k], ascending: the frames of the first and of the last chunk, and 32 between them. Of an offline run the first
    and last 16: what a wrong edge or a wrong mask spoils."""
    chunk = 16 if lookahead is None else lookahead + 1
    even = np.linspace(0, max(enc_frames - 1, 0), EVENLY_SPACED_SAMPLES).astype(np.int64)
    positions = np.concatenate([np.arange(chunk), even, np.arange(enc_frames - chunk, enc_frames)])
    return np.unique(positions[(positions >= 0) & (positions < enc_frames)])


def oracle_digest(checkpoint: Checkpoint, corpus: Corpus) -> str:
    """Of all that decides the record: a changed recording code counts as another oracle."""
    code = [sha256_file(Path(module)) for module in (__file__, nemo.__file__, nemo_runs.__file__)]
    streaming = checkpoint.spec.streaming
    profile = [] if streaming is None or streaming.attention_lookahead is None else [streaming.attention_lookahead]
    return digest_json([checkpoint.sha256, corpus.digest, code, version("nemo_toolkit"), version("torch"), *profile])


def record_oracle(
    checkpoint: Checkpoint, corpus: Corpus, build: Path, progress: Callable[[str], None] = lambda line: None
) -> Oracle:
    """Runs NeMo over the corpus at every lookahead, streaming, and offline where the lookahead is 1 or more; an offline
    model offline.

    Raises as `record_runs`.
    """
    lookaheads = checkpoint.spec.lookaheads
    wanted = [(STREAMING, r) for r in lookaheads if r is not None]
    wanted += [(OFFLINE, r) for r in lookaheads if r is None or r >= 1]
    return record_runs(checkpoint, corpus, wanted, build, progress)


def record_runs(
    checkpoint: Checkpoint,
    corpus: Corpus,
    wanted: Sequence[tuple[str, int | None]],
    build: Path,
    progress: Callable[[str], None] = lambda line: None,
) -> Oracle:
    """Runs NeMo over the corpus by each (mode, lookahead).

    Reads what build/oracle/<digest>/ holds already; each run is written when it is complete. Raises CheckpointError,
    OutputError.
    """
    digest = oracle_digest(checkpoint, corpus)
    folder = build / "oracle" / digest[:16]
    runs: dict[tuple[str, int | None], tuple[Record, ...]] = {}
    model = None
    for mode, lookahead in wanted:
        path = folder / f"{mode}{'' if lookahead is None else f'-{lookahead}'}.json"
        if not path.is_file():
            with exclusive_lock(path):  # processes that judge beside each other want the same runs
                if not path.is_file():
                    if model is None:
                        progress(f"oracle: restoring {checkpoint.path.name} in NeMo")
                        model = nemo.restore(checkpoint)
                    _record(model, checkpoint.spec, corpus, mode, lookahead, path, progress)
        runs[mode, lookahead] = _read(path, corpus, lookahead)
    return Oracle(digest, folder, runs)


def _record(model, spec: ModelSpec, corpus: Corpus, mode: str, lookahead: int | None, path: Path, progress) -> None:
    results, seconds, slots = [], 0.0, prompts(corpus, spec)
    within = spec.streaming.attention_lookahead if spec.streaming else None
    with nemo.exact(model), nemo.quiet():
        for at in range(0, len(corpus.utterances), BATCH_UTTERANCES):
            group = corpus.utterances[at : at + BATCH_UTTERANCES]
            audio, told = [u.samples() for u in group], slots[at : at + BATCH_UTTERANCES]
            if mode == STREAMING:
                languages = [spec.prompt.name(slot) for slot in told] if spec.prompt else None
                results += nemo_runs.stream(model, audio, lookahead, languages, within)
            else:
                pairs = zip(audio, told, strict=True)
                results += [nemo_runs.offline(model, one, lookahead, slot, within) for one, slot in pairs]
            seconds += sum(u.seconds for u in group)
            progress(f"oracle: {mode}, {context_name(lookahead)}: {seconds:.0f} of {corpus.seconds:.0f} s of audio")
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


def _read(path: Path, corpus: Corpus, lookahead: int | None) -> tuple[Record, ...]:
    todo = f"remove {path.parent} and record the oracle again"
    raw, packed = read_json(path, todo), path.with_suffix(".npz")
    known = packed.is_file() and sha256_file(packed) == raw.get("frames_sha256")
    if not known or [u.get("sha256") for u in raw["utterances"]] != [u.sha256 for u in corpus.utterances]:
        raise ArtifactError(
            f"The recorded oracle {path} is damaged.",
            expected="the encoder frames and the utterances that it was recorded with",
            found="other ones" if packed.is_file() else f"no {packed.name}",
            todo=todo,
        )
    with np.load(packed) as arrays:
        frames = arrays["frames"]
    counts = [len(sample_positions(u["enc_frames"], lookahead)) for u in raw["utterances"]]
    parts = np.split(frames, np.cumsum(counts)[:-1])
    return tuple(
        Record(tuple(u["tokens"]), tuple(u["token_frames"]), u["text"], u["enc_frames"], part)
        for u, part in zip(raw["utterances"], parts, strict=True)
    )
