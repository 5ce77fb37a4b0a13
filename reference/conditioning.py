"""Starts of an encoder's training: data-dependent initialisation of its subsampling, or the weights of another encoder.

Without either, the losses of a training from scratch do not fall.

Log-mel features are not normalised (mean about -10, deviation about 4). At NeMo's default initialisation the
subsampling then gives nearly the same vector for every input, the layers see a constant, and the losses stay at the
entropy of the unigrams. Here the first convolution normalises the features and the last linear layer its output.
"""

from __future__ import annotations

import torch


@torch.no_grad()
def transplant(source, asr, audio: torch.Tensor, n_samples: torch.Tensor) -> None:
    """Copies the encoder of a trained streaming ``source`` to that of ``asr``, of full context and the same widths.

    The source's features are log-mel as it is; those of ``asr`` have mean 0 and deviation 1 in each channel of an
    utterance. The first convolution makes up for the difference, which is measured on audio f32 [B, n]. Causal
    convolutions use the past alone; of nine taps the five nearest go where they meet the same frames, and those of the
    future start at zero. Causal subsampling pads to 17 bands, one mel channel below the 16 here, so the first band is
    dropped. Raises ValueError where the structures differ in more than their norms.
    """
    weights = {name: weight.clone() for name, weight in source.encoder.state_dict().items()}
    values = torch.cat(
        [f[:, : n - 1].flatten() for f, n in zip(*source.preprocessor(input_signal=audio, length=n_samples), strict=True)]
    )
    first = weights["pre_encode.conv.0.weight"]
    weights["pre_encode.conv.0.bias"] += values.mean() * first.sum((1, 2, 3))
    first *= values.std()
    out = weights["pre_encode.out.weight"]  # [d, channels * bands]
    channels = first.shape[0]
    weights["pre_encode.out.weight"] = out.unflatten(1, (channels, -1))[:, :, 1:].flatten(1)
    for name, weight in weights.items():
        if name.endswith("depthwise_conv.weight"):  # [d, 1, taps], the last tap is the present
            ahead = weight.shape[-1] // 2
            weights[name] = torch.nn.functional.pad(weight[..., ahead:], (0, ahead))
    result = asr.encoder.load_state_dict(weights, strict=False)
    # Batch norms have running statistics, layer norms none; nothing else may differ.
    unknown = [name for name in result.missing_keys if ".batch_norm." not in name] + result.unexpected_keys
    if unknown:
        raise ValueError(f"the encoders differ in {', '.join(unknown)}")


@torch.no_grad()
def copy_encoder(source, asr) -> None:
    """Copies the encoder of ``source`` to that of ``asr``, of the same structure; left context and lookaheads may differ.

    A prompt kernel is made to pass the encoder's output through: x = relu(x) - relu(-x), and it is twice as wide as x. At
    its usual initialisation the joint's input would be a random mixture of the encoder's outputs, and training would have
    to learn them again. The weights of the prompts start large enough to matter. Raises RuntimeError where the structures
    differ.
    """
    asr.encoder.load_state_dict(source.encoder.state_dict())
    if hasattr(asr, "prompt_kernel"):
        first, _, second = asr.prompt_kernel
        through = torch.eye(second.out_features)
        first.weight[:, : -asr.num_prompts] = torch.cat([through, -through])
        first.weight[:, -asr.num_prompts :].normal_(0.0, 0.2)
        first.bias.zero_()
        second.weight.copy_(torch.cat([through, -through], 1))
        second.bias.zero_()


@torch.no_grad()
def condition(asr, audio: torch.Tensor, n_samples: torch.Tensor) -> None:
    """Scales ``asr.encoder.pre_encode`` in place so that its output has mean 0 and deviation 1 in each channel.

    The statistics are those of one batch: audio f32 [B, n], n_samples i64 [B].
    """
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
