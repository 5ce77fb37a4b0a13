"""A streaming transducer in torch alone, for training where there is no NeMo: weights of a .nemo file, and back into one.

The encoder is the one that distillation trains (``distill.full_pass``), predictor and joint are those of the export; features and
losses are NeMo's. Every tensor has the gradient that ``step.losses`` gives it in NeMo's own model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nemoport.distill.full_pass import FullPassEncoder, SelfAttention
from nemoport.export.decoder import DecoderJoint
from nemoport.export.layers import MatMul
from nemoport.spec import ModelSpec

from . import loss

PREDICTOR_DROPOUT = 0.2  # between its LSTM layers, as NeMo's config has it
# Where a tensor of NeMo's stands here: the first part of a name that fits is replaced.
PLACES = (
    ("encoder.pre_encode.conv.0.", "encoder.pre_encode.first."),
    ("encoder.pre_encode.conv.2.", "encoder.pre_encode.depthwise.0."),
    ("encoder.pre_encode.conv.3.", "encoder.pre_encode.pointwise.0."),
    ("encoder.pre_encode.conv.5.", "encoder.pre_encode.depthwise.1."),
    ("encoder.pre_encode.conv.6.", "encoder.pre_encode.pointwise.1."),
    (".conv.depthwise_conv.", ".conv.depthwise_"),
    (".conv.batch_norm.", ".conv.norm."),
    (".linear_pos.weight", ".linear_pos"),
    ("decoder.prediction.embed.", "decoder_joint.embed."),
    ("decoder.prediction.dec_rnn.lstm.", "decoder_joint.lstm."),
    ("joint.joint_net.1.", "decoder_joint.head."),
    ("joint.joint_net.2.", "decoder_joint.head."),
    ("joint.", "decoder_joint."),
)


class Network(nn.Module):
    """A model to be trained. tensors: NeMo's, by name, f32; spec: of a cache-aware RNNT model without a prompt.

    An auxiliary CTC head, which is no part of the .nemo, is new. Raises CheckpointError for tensors that are absent.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, tensors: dict[str, Tensor], spec: ModelSpec):
        super().__init__()
        self.spec, self._given = spec, tensors
        streaming = spec.require_streaming()
        with torch.no_grad():
            self.encoder = FullPassEncoder(tensors, streaming)
            self.decoder_joint = DecoderJoint(tensors, spec.decoding)
            for part in self.encoder.modules():
                if isinstance(part, SelfAttention):
                    fixed = part.linear_pos
                    del part.linear_pos
                    part.register_parameter("linear_pos", nn.Parameter(fixed.clone()))
        self.decoder_joint.lstm.dropout = PREDICTOR_DROPOUT if spec.decoding.pred_layers > 1 else 0.0
        # The row of blank, the first target of a stream, is zero and stays so.
        self.decoder_joint.embed.padding_idx = spec.decoding.blank_id
        self.ctc = nn.Linear(streaming.d_model, spec.decoding.vocab_size + 1)
        self.register_buffer("window", tensors["preprocessor.featurizer.window"].clone(), persistent=False)
        self.register_buffer("filterbank", tensors["preprocessor.featurizer.fb"][0].clone(), persistent=False)
        self.requires_grad_(True)
        self.train()

    def tensors(self, of: Callable[[Tensor], Tensor] = Tensor.detach) -> dict[str, Tensor]:
        """The tensors as NeMo names and shapes them, f32 on the CPU. of: what to take of a parameter, such as its gradient."""
        made = {}
        for name, given in self._given.items():
            place = next((name.replace(theirs, ours, 1) for theirs, ours in PLACES if theirs in name), name)
            owner, _, last = place.rpartition(".")
            if name.startswith("preprocessor."):
                made[name] = given
                continue
            part = self.get_submodule(owner)
            value = of(getattr(part, last))
            value = value.t() if isinstance(part, MatMul) and last == "weight" else value
            made[name] = value.reshape(given.shape).to("cpu", torch.float32, copy=True).contiguous()
        return made

    @torch.no_grad()
    def features(self, audio: Tensor, n_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel f32 [B, n_mels, T] of audio f32 [B, n] at 16 kHz, of which n_samples i64 [B] count; and valid frames."""
        front = self.spec.frontend
        sharp = torch.cat([audio[:, :1], audio[:, 1:] - front.preemphasis * audio[:, :-1]], 1)
        sharp = sharp * (torch.arange(audio.size(1), device=audio.device) < n_samples[:, None])
        spectrum = torch.stft(
            sharp,
            front.n_fft,
            front.hop_samples,
            front.win_samples,
            self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power = torch.view_as_real(spectrum).square().sum(-1)
        n_frames = n_samples // front.hop_samples
        mel = torch.log(self.filterbank @ power + front.log_guard)
        return mel * (torch.arange(mel.size(2), device=mel.device) < n_frames[:, None])[:, None], n_frames

    def losses(
        self, audio: Tensor, n_samples: Tensor, targets: Tensor, n_labels: Tensor, lookahead: int, bfloat16: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Transducer and CTC loss in nats a token. audio f32 [B, n], targets i64 [B, U]; lookahead: in encoder frames.

        bfloat16: multiply so in the encoder.
        """
        mel, n_mel = self.features(audio, n_samples)
        with torch.autocast(audio.device.type, torch.bfloat16, enabled=bfloat16):
            frames, n_frames = self.encoder(mel, n_mel, lookahead)
        frames = frames.float()
        decoding = self.spec.decoding
        blank = torch.full_like(targets[:, :1], decoding.blank_id)
        state = frames.new_zeros(decoding.state_shape(len(frames)))
        logits = self.decoder_joint(frames.transpose(1, 2), torch.cat([blank, targets], 1), n_labels, state, state)[0]
        n_tokens = n_labels.sum().clamp(min=1)
        transducer = loss.transducer_loss(logits, targets, n_frames, n_labels, decoding.blank_id).sum() / n_tokens
        log_probs = torch.log_softmax(self.ctc(frames), -1).transpose(0, 1)
        ctc = nn.functional.ctc_loss(
            log_probs, targets, n_frames, n_labels, blank=decoding.blank_id, reduction="sum", zero_infinity=True
        )
        return transducer, ctc / n_tokens
