"""Sizes and structures of the models that the recipe makes: those that are published, the trained small ones, and tiny ones.

Published configurations: the models' own model_config.yaml as others read them, see docs/kinds. A tiny one has each structure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from . import kinds


@dataclass(frozen=True)
class Dimensions:
    """Sizes and structure of one model.

    dropout regularises the encoder, decoder_dropout predictor and joint. decoders: a transducer, one with a CTC decoder beside
    it ("hybrid"), or CTC alone; local_attention: frames that attention reaches to either side, 0 for all; appended: tokens behind
    those of the tokenizer's training, counted in `vocabulary`.
    """

    n_layers: int
    d_model: int
    n_heads: int
    subsampling_channels: int
    predictor_hidden: int
    joint_hidden: int
    vocabulary: int
    dropout: float = 0.1
    decoder_dropout: float = 0.2
    kind: kinds.Kind = "streaming"
    decoders: Literal["transducer", "hybrid", "ctc"] = "transducer"
    n_mels: int = 128
    use_bias: bool = False
    xscaling: bool = False
    predictor_layers: int = 2
    local_attention: int = 0
    appended: tuple[str, ...] = ()


END_OF_UTTERANCE = ("<EOU>", "<EOB>")  # of a turn, and of a backchannel; NeMo appends them to a tokenizer
_LARGE = Dimensions(24, 1024, 8, 256, 640, 640, 1024)
_REFERENCE = Dimensions(6, 176, 4, 64, 160, 160, 96, dropout=0.05)
_TINY = Dimensions(2, 64, 4, 32, 32, 32, 64)
# A tiny encoder before the 2 x 640 decoder states and 1024 tokens that some consumers have built in (see also widen.py).
_WIDE = replace(_TINY, predictor_hidden=640, joint_hidden=640, vocabulary=1024)
_MEDIUM = replace(_LARGE, n_layers=17, d_model=512, predictor_layers=1)
# With 80 mel bands and biases: the models of 2023 and 2024, and the hybrids.
_LARGE_80, _TINY_80, _MEDIUM_80 = (replace(size, n_mels=80, use_bias=True) for size in (_LARGE, _TINY, _MEDIUM))
_XXL_80 = replace(_LARGE_80, n_layers=42)
PRESETS = {
    "nemotron-en-0.6b": _LARGE,
    "reference": _REFERENCE,
    "tiny": _TINY,
    "nemotron-3.5-asr-0.6b": replace(_LARGE, vocabulary=13087, kind="prompt"),
    "reference-multilingual": replace(_REFERENCE, vocabulary=448, kind="prompt"),
    "tiny-multilingual": replace(_TINY, vocabulary=160, kind="prompt"),
    "parakeet-tdt-0.6b-v3": replace(_LARGE, vocabulary=8192, kind="tdt"),
    "reference-tdt": replace(_REFERENCE, vocabulary=128, kind="tdt"),
    "tiny-tdt": replace(_TINY, vocabulary=96, kind="tdt"),
    "wide-streaming": _WIDE,
    "wide-tdt": replace(_WIDE, kind="tdt"),
    "parakeet-ctc-0.6b": replace(_LARGE_80, kind="rnnt", decoders="ctc", xscaling=True),
    "parakeet-ctc-1.1b": replace(_XXL_80, kind="rnnt", decoders="ctc", xscaling=True),
    "tiny-ctc": replace(_TINY_80, kind="rnnt", decoders="ctc", xscaling=True),
    "tiny-streaming-ctc": replace(_TINY, decoders="ctc"),
    "parakeet-rnnt-0.6b": replace(_LARGE_80, kind="rnnt", xscaling=True),
    "parakeet-rnnt-1.1b": replace(_XXL_80, kind="rnnt", xscaling=True),
    "tiny-rnnt": replace(_TINY_80, kind="rnnt", xscaling=True),
    "parakeet-tdt-1.1b": replace(_XXL_80, kind="tdt"),
    "parakeet-tdt_ctc-1.1b": replace(_XXL_80, kind="tdt", decoders="hybrid", local_attention=128),
    "tiny-tdt_ctc-local": replace(_TINY_80, kind="tdt", decoders="hybrid", local_attention=8),
    "parakeet-tdt_ctc-110m": replace(_MEDIUM_80, kind="tdt", decoders="hybrid"),
    "tiny-tdt_ctc": replace(_TINY_80, kind="tdt", decoders="hybrid", predictor_layers=1),
    "parakeet-tdt_ctc-0.6b-ja": replace(_LARGE_80, kind="tdt", decoders="hybrid", xscaling=True, vocabulary=3072),
    "parakeet-unified-en-0.6b": replace(_LARGE, kind="unified", use_bias=True, xscaling=True),
    "tiny-unified": replace(_TINY, kind="unified", use_bias=True, xscaling=True),
    "parakeet_realtime_eou_120m-v1": replace(_MEDIUM, kind="eou", use_bias=True, vocabulary=1026, appended=END_OF_UTTERANCE),
    "tiny-eou": replace(_TINY, kind="eou", use_bias=True, predictor_layers=1, appended=END_OF_UTTERANCE),
    "stt_en_fastconformer_hybrid_large_streaming_multi": replace(_MEDIUM_80, decoders="hybrid", xscaling=True),
    "tiny-streaming-hybrid": replace(_TINY_80, decoders="hybrid", xscaling=True, predictor_layers=1),
}
