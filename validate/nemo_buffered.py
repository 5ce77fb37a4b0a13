"""Runs a restored checkpoint in NeMo itself by buffered streaming, as its script speech_to_text_streaming_infer_rnnt.py does."""

from __future__ import annotations

from typing import Any

import numpy as np

from nemoport.buffered import ChunkContext
from nemoport.validate.nemo_runs import NemoRun, run_of


def stream(model: Any, samples: np.ndarray, context: ChunkContext) -> NemoRun:
    """Runs one utterance, f32 [samples], alone: in a batch, NeMo's buffer gives the windows of a shorter one other samples.

    What the script sets for a model of this kind is set: greedy decoding by the batch, and the attention's context. The model
    has full context again afterwards. Where a window's chunk begins is read from the buffer's `context_size_batch`; the script
    reads it from `context_size`, which says the same but without a right context: `ContextSize` then takes the first chunk for
    right context, so that the script decodes that chunk twice and the last one never.
    """
    import torch
    from nemo.collections.asr.parts.utils.rnnt_utils import batched_hyps_to_hypotheses
    from nemo.collections.asr.parts.utils.streaming_utils import ContextSize, StreamingBatchedAudioBuffer

    frame_samples = model.encoder.subsampling_factor * int(model.cfg.sample_rate * model.cfg.preprocessor.window_stride)
    sizes = ContextSize(*(frames * frame_samples for frames in context))
    buffer = StreamingBatchedAudioBuffer(1, sizes, torch.float32, "cpu")
    audio, total = torch.from_numpy(samples)[None], len(samples)
    decode = model.decoding.decoding.decoding_computer
    hypotheses, state, frames = None, None, []
    model.encoder.set_default_att_context_size(list(context))
    left_sample, right_sample = 0, min(sizes.chunk + sizes.right, total)
    while left_sample < total:
        is_last = torch.tensor([right_sample >= total])
        added = torch.tensor([right_sample - left_sample])
        buffer.add_audio_batch_(audio[:, left_sample:right_sample], added, bool(is_last), is_last)
        encoded, encoded_length = model(input_signal=buffer.samples, input_signal_length=buffer.context_size_batch.total())
        place = buffer.context_size_batch.subsample(frame_samples)
        of_chunk = encoded.transpose(1, 2)[:, int(place.left) :]
        count = torch.where(is_last, encoded_length - place.left, place.chunk)
        found, state = decode(x=of_chunk, out_len=count, prev_batched_state=state)
        hypotheses = found if hypotheses is None else hypotheses.merge_(found)
        frames.append(of_chunk[0, : int(count)])
        left_sample, right_sample = right_sample, min(right_sample + sizes.chunk, total)
    model.encoder.set_default_att_context_size([-1, -1, -1])
    if hypotheses is None:
        return run_of(model, [], [], frames)
    found = batched_hyps_to_hypotheses(hypotheses, batch_size=1)[0]
    return run_of(model, [int(token) for token in found.y_sequence], [int(frame) for frame in found.timestamp], frames)
