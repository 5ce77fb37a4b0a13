"""A second oracle that shares no code with NeMo: HF transformers' NemotronAsrStreaming, Nemotron3_5Asr and Parakeet, with
the weights renamed."""

import itertools
import re

import numpy as np

RENAMED = {
    "encoder.pre_encode.out.": "encoder.subsampling.linear.",
    "encoder.pre_encode.conv.0.": "encoder.subsampling.conv_in.",
    ".linear_q.": ".q_proj.",
    ".linear_k.": ".k_proj.",
    ".linear_v.": ".v_proj.",
    ".linear_out.": ".o_proj.",
    ".linear_pos.": ".relative_k_proj.",
    "pos_bias_u": "bias_u",
    "pos_bias_v": "bias_v",
    ".conv.batch_norm.": ".conv.norm.",
    "decoder.prediction.embed.": "decoder.embedding.",
    "decoder.prediction.dec_rnn.lstm.": "decoder.lstm.",
    "joint.pred.": "decoder.decoder_projector.",
    "joint.enc.": "encoder_projector.",
    "joint.joint_net.2.": "joint.head.",  # 1 is dropout
    "decoder.decoder_layers.0.": "ctc_head.",
    "prompt_kernel.0.": "prompt_projector.linear_1.",
    "prompt_kernel.2.": "prompt_projector.linear_2.",
}


def from_checkpoint(checkpoint):
    """`NemotronAsrStreamingForRNNT` with the checkpoint's weights, `Nemotron3_5AsrForRNNT` of one with a prompt; refuses
    names without a partner on either side."""
    import transformers

    spec, encoder = checkpoint.spec, checkpoint.config["encoder"]
    prompt = spec.prompt and dict(num_prompts=spec.prompt.slots, prompt_intermediate_size=2 * spec.streaming.d_model)
    family = "Nemotron3_5Asr" if prompt else "NemotronAsrStreaming"
    config = getattr(transformers, f"{family}Config")(
        **(prompt or {}),
        vocab_size=spec.decoding.vocab_size + 1,
        blank_token_id=spec.decoding.blank_id,
        decoder_hidden_size=spec.decoding.pred_hidden,
        num_decoder_layers=spec.decoding.pred_layers,
        encoder_config=transformers.NemotronAsrStreamingEncoderConfig(
            hidden_size=spec.streaming.d_model,
            num_hidden_layers=spec.streaming.n_layers,
            num_attention_heads=spec.streaming.n_heads,
            intermediate_size=spec.streaming.d_model * encoder["ff_expansion_factor"],
            subsampling_conv_channels=encoder["subsampling_conv_channels"],
            conv_kernel_size=encoder["conv_kernel_size"],
            num_mel_bins=spec.frontend.n_mels,
            sliding_window=spec.streaming.left_context_enc_frames + 1,
            **switches(encoder),
        ),
    )
    model = getattr(transformers, f"{family}ForRNNT")(config).eval()
    weights = checkpoint.load_weights()
    renamed = {rename(k): v for k, v in weights.items() if not k.startswith("preprocessor.")}
    model.load_state_dict(renamed, strict=True)
    return model


def switches(encoder: dict) -> dict[str, bool]:
    """HF's names of NeMo's `use_bias` and `xscaling`, which are true where they are absent."""
    bias = encoder.get("use_bias", True)
    return {"attention_bias": bias, "convolution_bias": bias, "scale_input": encoder.get("xscaling", True)}


def rename(name: str) -> str:
    """NeMo's name of a weight -> HF's."""
    if match := re.fullmatch(r"encoder\.pre_encode\.conv\.([2-9])\.(\w+)", name):
        layer, kind = divmod(int(match[1]) - 2, 3)  # depthwise, pointwise, ReLU
        return f"encoder.subsampling.layers.{layer}.{'pointwise' if kind else 'depthwise'}_conv.{match[2]}"
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def mel(samples: np.ndarray, n_mels: int):
    """HF's own front end: f32 [1, T, n_mels] and its mask [1, T]."""
    from transformers import NemotronAsrStreamingFeatureExtractor

    extractor = NemotronAsrStreamingFeatureExtractor(feature_size=n_mels)
    found = extractor(samples, sampling_rate=16000, return_tensors="pt")
    return found.input_features, found.attention_mask


def offline_frames(model, features, mask, lookahead: int) -> np.ndarray:
    """f32 [T', d_model]; frames behind the valid ones are included."""
    encoded = model.encoder(features, attention_mask=mask, num_lookahead_tokens=lookahead)
    return encoded.last_hidden_state[0].numpy()


def streaming_frames(model, features, spec, lookahead: int) -> np.ndarray:
    """f32 [T', d_model] of the full chunks; features f32 [1, T, n_mels] of valid frames. It takes no shorter chunk."""
    position, caches, padding, frames = 0, None, None, []
    while position + (new := spec.chunk_mel_frames(lookahead, first=not frames)) <= features.shape[1]:
        out = model.encoder(
            features[:, position : position + new],
            use_cache=True,
            past_key_values=caches,
            padding_cache=padding,
            num_lookahead_tokens=lookahead,
        )
        caches, padding = out.past_key_values, out.padding_cache
        frames.append(out.last_hidden_state[0].numpy())
        position += new
    return np.concatenate(frames)


def prompted_frames(model, features, mask, lookahead: int, slot: int) -> np.ndarray:
    """f32 [T', d_model] behind the language prompt, before the joint's own projection."""
    import torch

    frames = torch.from_numpy(offline_frames(model, features, mask, lookahead))
    one_hot = torch.nn.functional.one_hot(torch.tensor(slot), model.config.num_prompts).to(frames.dtype)
    return model.prompt_projector(torch.cat([frames, one_hot.expand(len(frames), -1)], -1)).numpy()


def offline_tokens(model, features, mask, lookahead: int, slot: int | None = None) -> tuple[int, ...]:
    import torch

    prompt = {} if slot is None else {"prompt_ids": torch.tensor([slot])}
    blank = model.config.blank_token_id
    model.generation_config.decoder_start_token_id, model.generation_config.pad_token_id = blank, 0
    found = model.generate(input_features=features, attention_mask=mask, num_lookahead_tokens=lookahead, **prompt)
    return tuple(t for t in found.sequences[0].tolist() if t != blank)


def parakeet_from_checkpoint(checkpoint):
    """`ParakeetForTDT`, `ParakeetForRNNT` or `ParakeetForCTC` with the checkpoint's weights; refuses names without a partner on
    either side."""
    import transformers

    spec, encoder = checkpoint.spec, checkpoint.config["encoder"]
    family = {"ctc": "CTC", "rnnt": "RNNT", "tdt": "TDT"}[spec.head]
    head = dict(pad_token_id=spec.decoding.blank_id)
    if spec.head != "ctc":
        head = dict(
            blank_token_id=spec.decoding.blank_id,
            decoder_hidden_size=spec.decoding.pred_hidden,
            num_decoder_layers=spec.decoding.pred_layers,
            **(dict(durations=list(spec.decoding.durations)) if spec.decoding.durations else {}),
        )
    config = getattr(transformers, f"Parakeet{family}Config")(
        vocab_size=spec.decoding.vocab_size + 1,
        **head,
        encoder_config=transformers.ParakeetEncoderConfig(
            hidden_size=spec.encoder.d_model,
            num_hidden_layers=spec.encoder.n_layers,
            num_attention_heads=spec.encoder.n_heads,
            intermediate_size=spec.encoder.d_model * encoder["ff_expansion_factor"],
            subsampling_conv_channels=encoder["subsampling_conv_channels"],
            conv_kernel_size=encoder["conv_kernel_size"],
            num_mel_bins=spec.frontend.n_mels,
            **switches(encoder),
        ),
    )
    model = getattr(transformers, f"ParakeetFor{family}")(config).eval()
    renamed = {}
    for name, weight in checkpoint.load_weights().items():
        if not name.startswith("preprocessor."):
            subsampling = re.sub(r"^encoder\.pre_encode\.conv\.", "encoder.subsampling.layers.", name)
            renamed[subsampling if subsampling != name else rename(name)] = weight
    model.load_state_dict(renamed, strict=True)
    return model


def parakeet_tokens(model, features, mask) -> tuple[int, ...]:
    """Of a model whose generation config is that of `hf_folder.save`."""
    found = model.generate(input_features=features, attention_mask=mask)
    if model.config.model_type == "parakeet_ctc":  # the best token of each frame
        groups = [token for token, _ in itertools.groupby(found[0].tolist())]
        return tuple(token for token in groups if token != model.config.pad_token_id)
    return tuple(t for t in found.sequences[0].tolist() if t != model.config.blank_token_id)


def parakeet_mel(samples: np.ndarray, n_mels: int):
    """HF's own front end, normalised by band: f32 [1, T, n_mels] and its mask [1, T]."""
    from transformers import ParakeetFeatureExtractor

    found = ParakeetFeatureExtractor(feature_size=n_mels)(samples, sampling_rate=16000, return_tensors="pt")
    return found.input_features, found.attention_mask
