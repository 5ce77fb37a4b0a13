"""What one training step computes, and how a model is made ready for it."""
from __future__ import annotations

import random

import torch

from . import loss


def losses(asr, ctc_head: torch.nn.Module, batch: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    """Transducer and CTC loss of one batch, each in nats a token."""
    audio, n_samples, targets, n_labels = batch
    frames, n_frames = asr.forward(input_signal=audio, input_signal_length=n_samples)  # f32 [B, d, T]
    predictions, _, _ = asr.decoder(targets=targets, target_length=n_labels)
    # On the CPU NeMo's joint normalises its output; normalising twice changes nothing but takes time.
    asr.joint.log_softmax = False
    logits = asr.joint(encoder_outputs=frames, decoder_outputs=predictions)  # f32 [B, T, U+1, V+1]
    blank = logits.shape[-1] - 1
    n_tokens = n_labels.sum()
    transducer = loss.transducer_loss(logits, targets, n_frames, n_labels, blank).sum() / n_tokens
    log_probs = torch.log_softmax(ctc_head(frames.transpose(1, 2)), -1).transpose(0, 1)
    ctc = torch.nn.functional.ctc_loss(log_probs, targets, n_frames, n_labels, blank=blank, reduction="sum",
                                       zero_infinity=True) / n_tokens
    return transducer, ctc


def prepare(asr, seed: int, spec_augment: bool, freeze_subsampling: bool) -> None:
    """Seeds what NeMo draws by itself (SpecAugment, the lookahead of each batch) and drops the dropout that is slow.

    torch draws dropout masks on one core; the encoder's and the joint's took a tenth of the step, and with so much
    synthetic speech there is nothing to overfit. The predictor keeps its own, as the text is what repeats.
    ``freeze_subsampling`` holds its convolutions, which saves their gradient, a fifth of the step.
    """
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_flush_denormal(True)  # digital silence makes denormals, which are slow
    if spec_augment:
        asr.spec_augmentation.spec_augment._rng = random.Random(seed)
    else:
        asr.spec_augmentation = None
    asr.encoder.pre_encode.conv.requires_grad_(not freeze_subsampling)
    for part in (asr.encoder, asr.joint):
        for module in part.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif hasattr(module, "dropout_rate"):
                module.dropout_rate = 0.0
    asr.preprocessor.featurizer.dither = 1e-5
    asr.train()
