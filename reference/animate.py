"""Changes a randomly initialised model so that its tokens depend on the audio, as those of a trained one do.

The subsampling is conditioned (see ``conditioning``), and what encoder and predictor bring to the joint is centred and
scaled to unit deviation, so that the tokens vary with both. That alone gives silence on one clip and the same token ten
times a frame on the next, as a transducer's predictor does not see time pass. So tokens are put in two classes, +1 and
-1, and four units of the joint make them alternate, with s the first encoder unit and c the class of the last token:
  units 0 and 1 together are |s + c|, which raises blank: a token comes only where s opposes the last token's class;
  units 2 and 3 together are s, which lifts the tokens of its own sign: the new token then blocks the frame it came from.
A prompt is added to the encoder's output beforehand and moves it half as far as the audio does, so that tokens vary
with it as well. The bias of blank is set by bisection on greedy search. The scores of a CTC decoder are scaled to unit deviation,
and its bias of blank is set likewise. The durations of a TDT joint are left to chance,
centred so that no single one wins everywhere. Batch norms are given the statistics of the audio and random scales, so
that nothing that an exporter folds away is the identity.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch

from . import conditioning, prompt

TARGET_TOKENS_PER_S = 3.0
GATE, CLASS_GAIN = 3.0, 1.0  # against a deviation of about 0.5 of the other logits
PROMPT_GAIN = 0.5  # deviation that the prompt brings, for one of the audio


def standardise(linear: torch.nn.Linear, inputs: torch.Tensor) -> None:
    """Changes ``linear`` so that its output over inputs f32 [..., n] has mean 0 and deviation 1 in each channel."""
    outputs = linear(inputs).flatten(0, -2)
    linear.weight.div_(outputs.std(0)[:, None])
    linear.bias.copy_((linear.bias - outputs.mean(0)) / outputs.std(0))


def class_readout(states: torch.Tensor, last_class: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fits the linear map that reads last_class f32 [N] from predictor outputs states f32 [N, H], by ridge regression.

    Returns its weights f32 [H] and bias f32 [].
    """
    design = torch.cat([states, torch.ones(len(states), 1)], 1).double()
    penalty = 1e-3 * design.square().mean() * len(design) * torch.eye(design.shape[1], dtype=torch.double)
    solution = torch.linalg.solve(design.T @ design + penalty, design.T @ last_class.double()).float()
    return solution[:-1], solution[-1]


def alternate(asr, frames: torch.Tensor) -> None:
    """Sets the weights of predictor and joint so that tokens of two classes alternate with the audio.

    The module's docstring describes how. frames f32 [B, T, d] are encoder outputs.
    """
    joint, n_tokens = asr.joint, len(asr.tokenizer.vocab)
    head, embedding = joint.joint_net[-1], asr.decoder.prediction["embed"]
    classes = torch.where(torch.rand(n_tokens) < 0.5, -1.0, 1.0)
    embedding.weight[:n_tokens].add_(2 * classes[:, None] * torch.randn(embedding.embedding_dim))
    for name, parameter in asr.decoder.named_parameters():
        if "bias" in name:  # the state before the first token is then the middle of all states, not an outlier
            parameter.zero_()
    labels = torch.randint(0, n_tokens, (64, 40))
    states = asr.decoder(targets=labels, target_length=torch.full((64,), 40))[0].transpose(1, 2)  # [64, 41, H]
    last_class = torch.cat([torch.zeros(64, 1), classes[labels]], 1)

    standardise(joint.enc, frames)
    standardise(joint.pred, states)
    joint.pred.weight.mul_(0.5)
    joint.pred.bias.mul_(0.5)
    logits = head(torch.relu(joint.enc(frames).flatten(0, 1)[:150, None] + joint.pred(states).flatten(0, 1)[None, :150]))
    head.bias.sub_(logits.mean((0, 1)))  # else a few tokens win everywhere
    read_weight, read_bias = class_readout(states.flatten(0, 1), last_class.flatten())
    for unit, sign in enumerate((1.0, -1.0, 1.0, -1.0)):
        joint.enc.weight[unit] = sign * joint.enc.weight[0].clone() if unit else joint.enc.weight[0]
        joint.enc.bias[unit] = sign * joint.enc.bias[0].clone() if unit else joint.enc.bias[0]
        joint.pred.weight[unit] = sign * read_weight if unit < 2 else 0.0
        joint.pred.bias[unit] = sign * read_bias if unit < 2 else 0.0
    head.weight[:, :4] = 0.0
    head.weight[n_tokens, :2] = GATE
    head.weight[:n_tokens, 2] = CLASS_GAIN * classes
    head.weight[:n_tokens, 3] = -CLASS_GAIN * classes


def settle_batch_norms(asr, clips: torch.Tensor, n_samples: torch.Tensor) -> None:
    """Gives the encoder's batch norms random scales and shifts, and the running statistics of clips f32 [B, n]."""
    norms = [module for module in asr.encoder.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0.0, 0.2)
        norm.momentum = None  # the mean over all batches since the reset
        norm.reset_running_stats()
        norm.train()
    if norms:
        prompt.encode(asr, clips, n_samples)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def settle_prompt_kernel(asr, clips: torch.Tensor, n_samples: torch.Tensor) -> None:
    """Scales the prompt kernel so that its output has mean 0 and deviation 1 and depends on both audio and prompt.

    At the usual initialisation the prompt adds one weight to the many of a frame, and changes next to nothing.
    """
    mel, n_mel = asr.preprocessor(input_signal=clips, length=n_samples)
    frames = asr.encoder(audio_signal=mel, length=n_mel)[0].transpose(1, 2).flatten(0, 1)  # f32 [N, d]
    first, _, second = asr.prompt_kernel
    n_prompts = asr.num_prompts
    chosen = torch.nn.functional.one_hot(torch.randint(0, n_prompts, (len(frames),)), n_prompts).float()
    deviation = (frames @ first.weight[:, :-n_prompts].T).std(0)  # that the audio brings to each hidden unit
    first.weight[:, -n_prompts:] = PROMPT_GAIN * deviation[:, None] * torch.randn(len(deviation), n_prompts)
    inputs = torch.cat([frames, chosen], 1)
    standardise(first, inputs)
    standardise(second, torch.relu(first(inputs)))


def bisect_blank(bias: torch.Tensor, blank: int, tokens_per_s: Callable[[], float]) -> float:
    """Sets bias[blank] so that tokens_per_s is about TARGET_TOKENS_PER_S; returns what it is then."""
    low, high, rate = -10.0, 10.0, 0.0
    for _ in range(16):
        bias[blank] = (low + high) / 2
        rate = tokens_per_s()
        low, high = (bias[blank].item(), high) if rate > TARGET_TOKENS_PER_S else (low, bias[blank].item())
    return rate


def settle_ctc(head, frames: torch.Tensor, seconds: float) -> float:
    """Scales the scores of a CTC decoder over frames f32 [B, T, d], of so many seconds of audio; returns its tokens a second."""
    convolution = head.decoder_layers[0]
    scores = torch.nn.functional.linear(frames, convolution.weight.squeeze(2), convolution.bias).flatten(0, 1)
    convolution.weight.div_(scores.std(0)[:, None, None])
    convolution.bias.copy_((convolution.bias - scores.mean(0)) / scores.std(0))
    blank = len(convolution.bias) - 1

    def tokens_per_s() -> float:
        best = head(encoder_output=frames.transpose(1, 2)).argmax(2)  # i64 [B, T]
        previous = torch.nn.functional.pad(best, (1, 0), value=blank)[:, :-1]
        return int(((best != blank) & (best != previous)).sum()) / seconds

    return bisect_blank(convolution.bias, blank, tokens_per_s)


@torch.no_grad()
def animate(asr, audio: np.ndarray) -> float:
    """Changes the model in place so that its tokens depend on the audio; returns the tokens a second that it then emits.

    audio f32 [B, samples] at 16 kHz is what the statistics are taken from and the rate is measured on. The clips of a
    prompted model take turns in the languages and ``auto``.
    """
    clips = torch.from_numpy(audio)
    n_samples = torch.full((len(clips),), clips.shape[1])
    asr.preprocessor.featurizer.dither = 0.0
    conditioning.condition(asr, clips, n_samples)
    asr.eval()
    settle_batch_norms(asr, clips, n_samples)
    if prompt.is_prompted(asr):
        settle_prompt_kernel(asr, clips, n_samples)
    names = list(itertools.islice(itertools.cycle((prompt.AUTO, *prompt.LANGUAGES)), len(clips)))
    frames, n_frames = prompt.encode(asr, clips, n_samples, names)  # f32 [B, d, T]
    seconds, rate = clips.numel() / 16000, 0.0
    for name in ("decoder", "ctc_decoder"):
        if hasattr(getattr(asr, name, None), "decoder_layers"):
            rate = settle_ctc(getattr(asr, name), frames.transpose(1, 2), seconds)
    if not hasattr(asr, "joint"):
        return rate
    alternate(asr, frames.transpose(1, 2))

    def tokens_per_s() -> float:
        found = asr.decoding.rnnt_decoder_predictions_tensor(frames, n_frames, return_hypotheses=True)
        return sum(len(hypothesis.y_sequence) for hypothesis in found) / seconds

    return bisect_blank(asr.joint.joint_net[-1].bias, len(asr.tokenizer.vocab), tokens_per_s)
