"""One training step's losses, and the preparation of a model for training."""

from __future__ import annotations

import random

import torch

from . import data, kinds, loss, prompt


def stretches(
    cuts: list[tuple],
    frames: torch.Tensor,
    n_frames: torch.Tensor,
    predictions: torch.Tensor,
    targets: torch.Tensor,
    n_labels: torch.Tensor,
) -> tuple:
    """Cuts every utterance where its clips end, so that the lattice grows with the sum of the clips, not its square.

    Encoder and predictor have run over the whole of it; only the loss is given the stretches, each with its own labels.
    frames f32 [B, d, T], predictions f32 [B, H, U+1]; returns the same five things of the stretches, without ``cuts``.
    """
    pieces = []
    for i, inner in enumerate(cuts):
        ends = [(round(sample / data.SAMPLES_PER_ENC_FRAME), label) for sample, label in inner]
        start, first = 0, 0
        for end, last in [*ends, (int(n_frames[i]), int(n_labels[i]))]:
            pieces.append((frames[i, :, start:end].T, predictions[i, :, first : last + 1].T, targets[i, first:last]))
            start, first = end, last
    frames, predictions, targets = (
        torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True) for parts in zip(*pieces, strict=True)
    )
    n_frames, n_labels = (torch.tensor([len(piece[part]) for piece in pieces]) for part in (0, 2))
    return frames.transpose(1, 2), n_frames, predictions.transpose(1, 2), targets, n_labels


def losses(asr, ctc_head: torch.nn.Module, batch: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes transducer (or TDT) and CTC loss of one batch of ``data.collate``, each in nats a token."""
    audio, n_samples, targets, n_labels, cuts, prompts = batch
    frames, n_frames = prompt.encode(asr, audio, n_samples, prompts)  # f32 [B, d, T]
    predictions, _, _ = asr.decoder(targets=targets, target_length=n_labels)
    if any(cuts):
        frames, n_frames, predictions, targets, n_labels = stretches(cuts, frames, n_frames, predictions, targets, n_labels)
    # On the CPU NeMo's joint normalises its output; normalising twice changes nothing but takes time.
    asr.joint.log_softmax = False
    logits = asr.joint(encoder_outputs=frames, decoder_outputs=predictions)  # f32 [B, T, U+1, V+1 (+ durations)]
    blank = len(asr.tokenizer.vocab)
    n_tokens = n_labels.sum().clamp(min=1)
    if kinds.is_tdt(asr):
        transducer = loss.tdt_loss(logits, targets, n_frames, n_labels, blank, kinds.TDT_SIGMA).sum() / n_tokens
    else:
        transducer = loss.transducer_loss(logits, targets, n_frames, n_labels, blank).sum() / n_tokens
    log_probs = torch.log_softmax(ctc_head(frames.transpose(1, 2)), -1).transpose(0, 1)
    ctc = (
        torch.nn.functional.ctc_loss(log_probs, targets, n_frames, n_labels, blank=blank, reduction="sum", zero_infinity=True)
        / n_tokens
    )
    return transducer, ctc


def prepare(asr, seed: int, spec_augment: bool, freeze_subsampling: bool) -> None:
    """Prepares a model for training: seeds what NeMo draws by itself, and drops the dropout that is slow.

    NeMo draws the masks of SpecAugment and the lookahead of each batch. torch draws dropout masks on one core; the
    encoder's and the joint's took a tenth of the step, and with so much synthetic speech there is nothing to overfit. The
    predictor keeps its own, as the text is what repeats. ``freeze_subsampling`` holds the convolutions of the subsampling,
    which saves their gradient, a fifth of the step.
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
