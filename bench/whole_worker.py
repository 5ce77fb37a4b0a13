"""A worker of whole.py in our environment: whole_worker.py KIND PATH THREADS AUDIO.npy.

KIND: nemoport, a variant's folder, of any runtime of ours; sherpa, a folder of peers/sherpa.py; nemo, a checkpoint; read, which
reads a GiB of memory in place of each chunk.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent / "peers"))
import turns  # noqa: E402

Begin = Callable[[int, int], turns.Streams]


def of_nemoport(folder: str, threads: int) -> Begin:
    from nemoport.artifact import Artifact
    from nemoport.runtimes import open_session
    from nemoport.stream import Stream, advance
    from nemoport.tokens import detokenize, read_tokens

    artifact = Artifact.open(folder)
    session, filterbank = open_session(artifact, "cpu", threads), artifact.filterbank()
    pieces = read_tokens(artifact.shared / "tokens.txt")

    def begin(lookahead: int, n_streams: int) -> turns.Streams:
        opened = [Stream(session, filterbank, lookahead, prompt=0 if artifact.spec.prompt else None) for _ in range(n_streams)]

        def step(chunks: list[np.ndarray]) -> None:
            for stream, samples in zip(opened, chunks, strict=True):
                stream.push(samples)
            advance(session, opened)

        return turns.Streams(step, lambda: (len(opened[0].tokens), detokenize(pieces, opened[0].tokens)))

    return begin


def of_sherpa(folder: str, threads: int) -> Begin:
    from sherpa_onnx import OnlineRecognizer

    from nemoport.spec import ModelSpec

    spec = ModelSpec.from_dict(json.loads((Path(folder) / "config.json").read_text())["spec"])
    graphs = {part: str(next(Path(folder).glob(f"{part}*.onnx"))) for part in ("encoder", "decoder", "joiner")}
    recognizer = OnlineRecognizer.from_transducer(tokens=f"{folder}/tokens.txt", num_threads=threads, **graphs)

    def begin(lookahead: int, n_streams: int) -> turns.Streams:
        opened = [recognizer.create_stream() for _ in range(n_streams)]
        # What a window has beyond a chunk, the end of its last frame, and the frame more that sherpa-onnx waits for.
        ahead = (spec.streaming.pre_encode_cache_mel_frames + 3) * spec.frontend.hop_samples
        for stream in opened:
            stream.accept_waveform(turns.RATE_HZ, np.zeros(ahead, np.float32))

        def step(chunks: list[np.ndarray]) -> None:
            for stream, samples in zip(opened, chunks, strict=True):
                stream.accept_waveform(turns.RATE_HZ, samples)
            recognizer.decode_streams(opened)

        return turns.Streams(step, lambda: (len(recognizer.tokens(opened[0])), recognizer.get_result(opened[0])))

    return begin


def of_nemo(checkpoint: str, threads: int) -> Begin:
    """NeMo's own step, `conformer_stream_step`, behind its own preprocessor of each chunk's window."""
    import torch

    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.validate import nemo

    torch.set_num_threads(threads)
    read = read_checkpoint(checkpoint)
    model, streaming = nemo.restore(read), read.spec.streaming
    hop, before = read.spec.frontend.hop_samples, streaming.pre_encode_cache_mel_frames

    def begin(lookahead: int, n_streams: int) -> turns.Streams:
        model.encoder.set_default_att_context_size([streaming.left_context_enc_frames, lookahead])
        state: dict = {"caches": model.encoder.get_initial_cache_state(batch_size=n_streams), "hypotheses": None, "labels": None}
        # A window ends seven mel frames before its samples do, as NeMo's own begin one frame behind a multiple of eight; two more
        # frames are the edge, which the preprocessor pads.
        edge, behind = 2, 7
        past = np.zeros((n_streams, (edge + behind + before) * hop), np.float32)
        start = -(behind + before)  # of the window, in mel frames of the stream; the first window begins with the stream

        def step(chunks: list[np.ndarray]) -> None:
            nonlocal past, start
            heard = np.concatenate([past, np.stack(chunks)], axis=1)
            past = heard[:, -past.shape[1] :]
            first = state["hypotheses"] is None
            size = streaming.window_mel_frames(lookahead, first=first)
            with torch.inference_mode(), nemo.exact(model):
                lengths = torch.full((n_streams,), heard.shape[1])
                mel, _ = model.preprocessor(input_signal=torch.from_numpy(heard), length=lengths)
                mel = mel[:, :, edge:]
                if start < 0:
                    mel[:, :, :-start] = 0  # what is before a stream, of which the first window has nothing
                window = mel[:, :, -start if first else 0 :][:, :, :size]
                state["labels"], _, *caches, state["hypotheses"] = model.conformer_stream_step(
                    processed_signal=window,
                    processed_signal_length=torch.full((n_streams,), size),
                    cache_last_channel=state["caches"][0],
                    cache_last_time=state["caches"][1],
                    cache_last_channel_len=state["caches"][2],
                    keep_all_outputs=False,
                    previous_hypotheses=state["hypotheses"],
                    previous_pred_out=state["labels"],
                    drop_extra_pre_encoded=0 if first else streaming.drop_enc_frames,
                    return_transcription=True,
                )
            state["caches"] = caches
            start += streaming.chunk_mel_frames(lookahead, first=False)

        def found() -> tuple[int, str]:
            ids = [int(token) for token in state["hypotheses"][0].y_sequence]
            return len(ids), model.tokenizer.ids_to_text(ids)

        return turns.Streams(step, found)

    return begin


def reading(_: str, threads: int) -> Begin:
    import torch

    torch.set_num_threads(threads)
    values = torch.ones(2**28)
    return lambda lookahead, n_streams: turns.Streams(lambda chunks: values.sum(), lambda: (None, ""))


KINDS = {"read": reading, "nemoport": of_nemoport, "sherpa": of_sherpa, "nemo": of_nemo}


def main(kind: str, path: str, threads: str, audio: str) -> None:
    turns.serve(KINDS[kind](path, int(threads)), audio)


if __name__ == "__main__":
    main(*sys.argv[1:])
