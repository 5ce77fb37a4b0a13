"""Names of the weights in Hugging Face transformers, and NeMo's names of the same."""

from __future__ import annotations

import re

_LAYER = r"encoder\.layers\.(\d+)\."
_RENAMED = [
    (re.compile(pattern), nemo)
    for pattern, nemo in (
        (rf"{_LAYER}self_attn\.([qkv])_proj\.(\w+)", r"encoder.layers.\1.self_attn.linear_\2.\3"),
        (rf"{_LAYER}self_attn\.o_proj\.(\w+)", r"encoder.layers.\1.self_attn.linear_out.\2"),
        (rf"{_LAYER}self_attn\.relative_k_proj\.(\w+)", r"encoder.layers.\1.self_attn.linear_pos.\2"),
        (rf"{_LAYER}self_attn\.bias_([uv])", r"encoder.layers.\1.self_attn.pos_bias_\2"),
        (rf"{_LAYER}conv\.norm\.(\w+)", r"encoder.layers.\1.conv.batch_norm.\2"),
        (r"encoder\.subsampling\.linear\.(\w+)", r"encoder.pre_encode.out.\1"),
        (r"encoder\.subsampling\.layers\.(\d+)\.(weight|bias)", r"encoder.pre_encode.conv.\1.\2"),  # Parakeet's
        (r"encoder\.subsampling\.conv_in\.(\w+)", r"encoder.pre_encode.conv.0.\1"),  # from here on Nemotron's
        (r"encoder\.subsampling\.layers\.0\.depthwise_conv\.(\w+)", r"encoder.pre_encode.conv.2.\1"),
        (r"encoder\.subsampling\.layers\.0\.pointwise_conv\.(\w+)", r"encoder.pre_encode.conv.3.\1"),
        (r"encoder\.subsampling\.layers\.1\.depthwise_conv\.(\w+)", r"encoder.pre_encode.conv.5.\1"),
        (r"encoder\.subsampling\.layers\.1\.pointwise_conv\.(\w+)", r"encoder.pre_encode.conv.6.\1"),
        (r"decoder\.embedding\.(\w+)", r"decoder.prediction.embed.\1"),
        (r"decoder\.lstm\.(\w+)", r"decoder.prediction.dec_rnn.lstm.\1"),
        (r"decoder\.decoder_projector\.(\w+)", r"joint.pred.\1"),
        (r"encoder_projector\.(\w+)", r"joint.enc.\1"),
        (r"joint\.head\.(\w+)", r"joint.joint_net.2.\1"),
        (r"ctc_head\.(\w+)", r"decoder.decoder_layers.0.\1"),
        (r"prompt_projector\.linear_1\.(\w+)", r"prompt_kernel.0.\1"),
        (r"prompt_projector\.linear_2\.(\w+)", r"prompt_kernel.2.\1"),
    )
]


def nemo_name(name: str) -> str:
    """NeMo's name of a weight; the same name for one that both call alike, or that is unknown."""
    for pattern, nemo in _RENAMED:
        if match := pattern.fullmatch(name):
            return match.expand(nemo)
    return name
