"""Data-dependent initialisation of the subsampling, without which training from scratch does not start.

Log-mel features are not normalised (mean about -10, deviation about 4). At NeMo's default initialisation the
subsampling then gives nearly the same vector for every input, the layers see a constant, and the losses stay at the
entropy of the unigrams. Here the first convolution normalises the features and the last linear layer its output.
"""
from __future__ import annotations

import torch


@torch.no_grad()
def condition(asr, audio: torch.Tensor, n_samples: torch.Tensor) -> None:
    """Changes ``asr.encoder.pre_encode`` in place, from one batch: audio f32 [B, n], n_samples i64 [B]."""
    asr.eval()
    features, n_mel_frames = asr.preprocessor(input_signal=audio, length=n_samples)  # f32 [B, 128, T]
    # The last frame of NeMo's features is zero, not silence: it would move the mean.
    values = torch.cat([f[:, : n - 1].flatten() for f, n in zip(features, n_mel_frames, strict=True)])
    mean, deviation = values.mean(), values.std()
    first = asr.encoder.pre_encode.conv[0]
    first.bias.sub_(mean / deviation * first.weight.sum((1, 2, 3)))
    first.weight.div_(deviation)
    frames, n_frames = asr.encoder.pre_encode(x=features.transpose(1, 2), lengths=n_mel_frames)  # f32 [B, T', d]
    frames = torch.cat([x[:n] for x, n in zip(frames, n_frames, strict=True)])
    out = asr.encoder.pre_encode.out
    out.weight.div_(frames.std(0)[:, None])
    out.bias.copy_((out.bias - frames.mean(0)) / frames.std(0))
    asr.train()
