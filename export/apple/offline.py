"""Torch modules of the graphs that nemoport/apple/offline.py describes: of fixed shapes, for one recording."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nemoport.apple.graphs import JOINT, PREDICT
from nemoport.apple.offline import encoder_name
from nemoport.export.apple.modules import Join, Predict
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.decoder import DecoderJoint
from nemoport.export.encoder_fixed import FixedEncoder
from nemoport.export.heads.ctc import CtcDecoder
from nemoport.export.layers import MatMul
from nemoport.export.shared import graph_weights
from nemoport.export.weight_errors import explain_weight_errors, refuse_unused
from nemoport.spec import CTC


class Recording(nn.Module):
    """The encoder, and the joint's projection of its frames, or the scores of a CTC decoder."""

    def __init__(self, encoder: FixedEncoder, head: MatMul, ctc: bool):
        super().__init__()
        self.encoder, self.head, self.ctc = encoder, head, ctc

    def forward(self, mel: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """mel [1, T, n_mels]; length i32 [1] -> encoded [1, T', d]; enc_proj [1, T', joint_hidden], or logprobs
        [1, T', n_scores]."""
        frames, _ = self.encoder(mel.transpose(1, 2), length)
        scored = self.head(frames)
        return frames, torch.log_softmax(scored, -1) if self.ctc else scored


def offline_modules(checkpoint: Checkpoint, windows_s: Sequence[int], dtype: torch.dtype) -> tuple[dict[str, nn.Module], int]:
    """Makes the modules of every graph: graph name -> module, and the number of channels of the subsampling.

    windows_s: seconds of the windows; dtype: of the encoder. Raises CheckpointError.
    """
    weights, spec = graph_weights(checkpoint), checkpoint.spec
    offline, ctc = spec.require_offline(), spec.head == CTC
    with explain_weight_errors(checkpoint), torch.no_grad():
        encoder = FixedEncoder(weights, offline, offline.enc_frames(spec.frontend.mel_frames(max(windows_s))))
        decoder = CtcDecoder(weights, spec.decoding) if ctc else DecoderJoint(weights, spec.decoding)
    refuse_unused(checkpoint, encoder.unused + decoder.unused)
    head = decoder.linear if isinstance(decoder, CtcDecoder) else decoder.enc
    modules: dict[str, nn.Module] = {encoder_name(seconds): Recording(encoder, head, ctc).to(dtype) for seconds in windows_s}
    if isinstance(decoder, DecoderJoint):
        modules |= {PREDICT: Predict(decoder), JOINT: Join(decoder.head)}
    channels = encoder.pre_encode.convolutions[0].shape[0]
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}, channels
