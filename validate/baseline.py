"""Measures NeMo's own `export()`, for comparison with nemoport's.

Its graphs are run as the published package danielbodart/nemotron-speech-600m-onnx documents: nine frames of zeros before the
first chunk, the first two encoder frames of every chunk dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.chunker import Chunk
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.config import default_lookahead
from nemoport.files import digest_json, read_json, sha256_file, write_json
from nemoport.frontend import LogMel, mel_filterbank
from nemoport.progress import Progress, Step, silent, step
from nemoport.runtimes.onnxruntime.merged import MergedSession
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.score import count_all, wer_percent
from nemoport.spec import CTC, StreamingSpec
from nemoport.speech.corpus import Corpus
from nemoport.stream import Stream, advance
from nemoport.tokens import detokenize
from nemoport.validate import nemo
from nemoport.validate.nemo_process import in_nemo
from nemoport.validate.oracle import OFFLINE, STREAMING, Oracle

BATCH_UTTERANCES = 8
ENCODER, DECODER = "encoder-x.onnx", "decoder_joint-x.onnx"  # as NeMo names them
MERGED = "x.onnx"  # of a CTC model


@dataclass(frozen=True)
class Baseline:
    """Figures of NeMo's exported graphs at one lookahead, on the oracle's utterances."""

    lookahead: int
    utterances: int
    token_exact: int  # utterances with the tokens of NeMo's streaming run
    token_exact_either: int  # ... or of its offline run, which handles the tail as the package does
    wer_percent: float
    oracle_wer_percent: float


def record_baseline(
    checkpoint: Checkpoint,
    corpus: Corpus,
    oracle: Oracle,
    build: Path,
    progress: Progress = silent,
    threads: int = 0,
) -> list[Baseline]:
    """Measures at the published package's 560 ms (lookahead 6, where the checkpoint has it) and at lookahead 1.

    Figures are kept in build/oracle/ and read from there the next time. threads: intra-op threads, 0 for onnxruntime's
    choice. Raises UsageError for an offline model, ArtifactError.
    """
    lookaheads = {default_lookahead(checkpoint.spec), 1} & {*checkpoint.spec.require_streaming().lookaheads}
    paths = {}
    for lookahead in sorted(lookaheads, reverse=True):
        key = digest_json([oracle.digest, sha256_file(Path(__file__)), lookahead])
        paths[lookahead] = build / "oracle" / f"baseline-{key[:16]}.json"
    if missing := {str(lookahead): lookahead for lookahead, path in paths.items() if not path.is_file()}:
        task = {"task": "export", "lookaheads": list(missing.values())}
        with in_nemo(checkpoint, task, progress) as results:
            for name, place in results:
                if name in missing:
                    figures = _measure(checkpoint, corpus, oracle, missing[name], place / name, progress, threads)
                    write_json(paths[missing[name]], asdict(figures))
    return [Baseline(**read_json(path, f"remove {path} and record the baseline again")) for path in paths.values()]


def export_in_nemo(checkpoint: Checkpoint, task: dict[str, Any], folder: Path, progress: Progress) -> Iterator[str]:
    """Exports with NeMo in this process, for `record_baseline`: writes the graphs of each lookahead into a folder of its own in
    `folder` and yields its name."""
    for lookahead in task["lookaheads"]:
        (folder / str(lookahead)).mkdir()
        with step(f"baseline: NeMo's own export at lookahead {lookahead}", progress):
            _export(checkpoint, lookahead, folder / str(lookahead))
        yield str(lookahead)


def _measure(
    checkpoint: Checkpoint,
    corpus: Corpus,
    oracle: Oracle,
    lookahead: int,
    folder: Path,
    progress: Progress,
    threads: int,
) -> Baseline:
    streaming = oracle.runs[STREAMING, lookahead]
    offline = oracle.runs.get((OFFLINE, lookahead), streaming)
    # NeMo exports the encoder of a model with a prompt without the prompt, and does not warn of it.
    spec = replace(checkpoint.spec, prompt=None)
    if spec.head == CTC:
        session: OnnxSession = MergedSession(spec, folder / MERGED, threads=threads)
    else:
        session = OnnxSession(spec, folder / ENCODER, folder / DECODER, threads=threads)
    tokens = _transcribe(session, corpus, lookahead, progress)
    texts = [detokenize(checkpoint.pieces, one) for one in tokens]
    references, languages = ([getattr(u, name) for u in corpus.utterances] for name in ("text", "language"))
    either = [{s.tokens, o.tokens} for s, o in zip(streaming, offline, strict=True)]
    return Baseline(
        lookahead=lookahead,
        utterances=len(streaming),
        token_exact=sum(tuple(t) == record.tokens for t, record in zip(tokens, streaming, strict=True)),
        token_exact_either=sum(tuple(t) in both for t, both in zip(tokens, either, strict=True)),
        wer_percent=wer_percent(count_all(references, texts, languages)),
        oracle_wer_percent=wer_percent(count_all(references, [record.text for record in streaming], languages)),
    )


def _export(checkpoint: Checkpoint, lookahead: int, folder: Path) -> None:
    model = nemo.restore(checkpoint)
    left = checkpoint.spec.require_streaming().left_context_enc_frames
    with nemo.quiet():
        model.encoder.set_default_att_context_size([left, lookahead])
        model.set_export_config({"cache_support": "True"})
        model.export(str(folder / MERGED), verbose=False)


def _transcribe(session: OnnxSession, corpus: Corpus, lookahead: int, progress: Progress) -> list[list[int]]:
    frontend, streaming = session.spec.frontend, session.spec.require_streaming()
    log_mel = LogMel(frontend, mel_filterbank(frontend))
    tokens, seconds = [], 0.0
    for at in range(0, len(corpus.utterances), BATCH_UTTERANCES):
        group = corpus.utterances[at : at + BATCH_UTTERANCES]
        streams = []
        for utterance in group:
            stream = Stream(session, mel_filterbank(frontend), lookahead)
            stream.chunks = windows(log_mel.whole(utterance.samples()), streaming, lookahead)
            streams.append(stream)
        while running := [s for s in streams if s.chunks]:
            advance(session, running)
        tokens += [stream.tokens for stream in streams]
        seconds += sum(u.seconds for u in group)
        progress(Step(f"baseline: lookahead {lookahead}", seconds, corpus.seconds, "s of audio"))
    return tokens


def windows(mel: np.ndarray, spec: StreamingSpec, lookahead: int) -> list[Chunk]:
    """Cuts mel, f32 [n_mels, n], into windows of one size, with zeros before the first and behind the last frames."""
    cache, new = spec.pre_encode_cache_mel_frames, spec.chunk_mel_frames(lookahead, first=False)
    count = -(-mel.shape[1] // new)
    padded = np.pad(mel, ((0, 0), (cache, count * new - mel.shape[1])))
    lengths = [cache + min(new, mel.shape[1] - i * new) for i in range(count)]
    return [Chunk(padded[:, i * new : (i + 1) * new + cache], lengths[i], first=False) for i in range(count)]
