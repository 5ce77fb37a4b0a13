"""NeMo's greedy hypotheses of manifest rows, by its offline forward."""

from __future__ import annotations

from typing import Any

from . import kinds, prompt


def hypotheses(asr: Any, rows: list[dict], lookahead: int | None, name: str = prompt.AUTO, batch: int = 16) -> list:
    """Transcribes rows with absolute audio_filepath; returns NeMo's hypotheses in their order.

    ``lookahead`` is in encoder frames, None for a model of full context; ``name`` is a prompted model's prompt. The model
    is left as it was, but for the lookahead (eval mode assumed).
    """
    import soundfile
    import torch

    if lookahead is not None:
        asr.encoder.set_default_att_context_size([kinds.context(kinds.kind_of(asr))[0], lookahead])
    result: list = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: rows[i]["duration"])
    for start in range(0, len(order), batch):
        indices = order[start : start + batch]
        clips = [torch.from_numpy(soundfile.read(rows[i]["audio_filepath"], dtype="float32")[0]) for i in indices]
        with torch.no_grad():  # inference mode would leave its mark on the position table and stop training
            frames, n_frames = prompt.encode(
                asr,
                torch.nn.utils.rnn.pad_sequence(clips, batch_first=True),
                torch.tensor([len(clip) for clip in clips]),
                [name] * len(clips),
            )
            found = asr.decoding.rnnt_decoder_predictions_tensor(frames, n_frames, return_hypotheses=True)
        for i, hypothesis in zip(indices, found, strict=True):
            result[i] = hypothesis
    return result


def transcribe(asr: Any, rows: list[dict], lookahead: int | None, batch: int = 16) -> list[str]:
    """Transcribes rows as ``hypotheses`` does; returns their texts."""
    return [hypothesis.text for hypothesis in hypotheses(asr, rows, lookahead, batch=batch)]
