"""The kinds of checkpoint that are exported, one entry of KINDS each, and of which a checkpoint's config is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemoport.spec import CTC

LOG_GUARD = 2.0**-24  # NeMo AudioToMelSpectrogramPreprocessor's default log_zero_guard_value
HYBRID = "EncDecHybridRNNTCTCBPEModel"  # NeMo's transducer of the same class, and a CTC decoder beside it, see hybrid.py
CTC_MODEL = "EncDecCTCModelBPE"
# Classes that differ from another in how they are trained and scored alone.
_TRAINED_OTHERWISE = {"EncDecRNNTBPEEOUModel": "EncDecRNNTBPEModel", "EncDecHybridRNNTCTCBPEEOUModel": HYBRID}

Settings = dict[str, tuple[Any, Any]]  # key of a section -> (NeMo's value where the config has no such key, the required value)


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint that is exported.

    name: ends with the name of its head (nemoport/heads/), as offline-tdt and offline-ctc do; nemo_class: the last part of the
    config's `target`; sections: section of the config -> its required settings; streaming: whether the encoder is cache-aware,
    or has full context; prompt: whether the model has a language prompt; hybrid: the class of models that have a transducer of
    this kind beside another decoder, or ""; buffered: whether an encoder of full context was trained to stream by windows of
    audio too.
    """

    name: str
    nemo_class: str
    sections: Mapping[str, Settings]
    streaming: bool
    prompt: bool = False
    hybrid: str = ""
    buffered: bool = False

    @property
    def head(self) -> str:
        """rnnt, tdt or ctc."""
        return self.name.rpartition("-")[2]

    @property
    def parts(self) -> tuple[str, ...]:
        """Sections of a config that describe the model, each a module of NeMo's."""
        return ("encoder", "decoder", *(() if self.head == CTC else ("joint",)), "preprocessor")


_ANY_ENCODER: Settings = {
    "subsampling": ("striding", "dw_striding"),
    "subsampling_factor": (4, 8),
    "untie_biases": (True, True),
    "reduction": (None, None),
    "global_tokens": (0, 0),
}
_NO_WINDOWS: Settings = {"att_chunk_context_size": (None, None)}
_STREAMING_ENCODER: Settings = {
    "att_context_style": ("regular", "chunked_limited"),
    "conv_norm_type": ("batch_norm", "layer_norm"),
    "conv_context_size": (None, "causal"),
    "causal_downsampling": (False, True),
}
_OFFLINE_ENCODER: Settings = {
    "att_context_style": ("regular", "regular"),
    "conv_norm_type": ("batch_norm", "batch_norm"),
    "conv_context_size": (None, None),
    "causal_downsampling": (False, False),
}
BUFFERED_STYLE = "chunked_limited_with_rc"
JUDGED_BY_ITSELF = object()  # in place of a required value: see unsupported.py
_BUFFERED_ENCODER = _OFFLINE_ENCODER | {
    "att_context_style": ("regular", BUFFERED_STYLE),
    "att_chunk_context_size": (None, JUDGED_BY_ITSELF),
}
_FRONTEND: Settings = {
    "window": ("hann", "hann"),
    "log": (True, True),
    "frame_splicing": (1, 1),
    "mag_power": (2.0, 2.0),
    "mel_norm": ("slaney", "slaney"),
    "exact_pad": (False, False),
    "lowfreq": (0, 0),
    "highfreq": (None, None),
    "log_zero_guard_type": ("add", "add"),
    "pad_value": (0, 0),
}
_DECODER: Settings = {"normalization_mode": (None, None), "blank_as_pad": (True, True)}
_CTC_DECODER: Settings = {"add_blank": (True, True)}
_STREAMING_SECTIONS = {
    "encoder": _ANY_ENCODER | _STREAMING_ENCODER | _NO_WINDOWS,
    "decoder": _DECODER,
    "preprocessor": _FRONTEND | {"normalize": ("per_feature", "NA")},
}
_OFFLINE_SECTIONS = {
    "encoder": _ANY_ENCODER | _OFFLINE_ENCODER | _NO_WINDOWS,
    "decoder": _DECODER,
    "preprocessor": _FRONTEND | {"normalize": ("per_feature", "per_feature")},
}
_BUFFERED_SECTIONS = _OFFLINE_SECTIONS | {"encoder": _ANY_ENCODER | _BUFFERED_ENCODER}
KINDS = (
    Kind("streaming-rnnt", "EncDecRNNTBPEModel", _STREAMING_SECTIONS, streaming=True, hybrid=HYBRID),
    Kind("streaming-prompt-rnnt", "EncDecRNNTBPEModelWithPrompt", _STREAMING_SECTIONS, streaming=True, prompt=True),
    Kind("offline-rnnt", "EncDecRNNTBPEModel", _OFFLINE_SECTIONS, streaming=False, hybrid=HYBRID),
    Kind("offline-tdt", "EncDecRNNTBPEModel", _OFFLINE_SECTIONS, streaming=False, hybrid=HYBRID),
    Kind("buffered-rnnt", "EncDecRNNTBPEModel", _BUFFERED_SECTIONS, streaming=False, hybrid=HYBRID, buffered=True),
    Kind("streaming-ctc", CTC_MODEL, {**_STREAMING_SECTIONS, "decoder": _CTC_DECODER}, streaming=True),
    Kind("offline-ctc", CTC_MODEL, {**_OFFLINE_SECTIONS, "decoder": _CTC_DECODER}, streaming=False),
)


def kind_named(name: str) -> Kind:
    """The entry of KINDS with a name."""
    return next(kind for kind in KINDS if kind.name == name)


def kind_of(config: dict) -> Kind:
    """The kind that a config is nearest to; unsupported.py lists why it may be none. The attention context decides first, then
    the class, then the head; of equally near kinds, the first in KINDS."""
    encoder = config.get("encoder")
    buffered = isinstance(encoder, dict) and encoder.get("att_context_style") == BUFFERED_STYLE
    streaming = not buffered and (not isinstance(encoder, dict) or _is_cache_aware(encoder))
    nemo_class, head = nemo_class_of(config), CTC if _is_ctc(config) else "tdt" if is_tdt(config) else "rnnt"

    def agreement(kind: Kind) -> list[bool]:
        known = bool(nemo_class) and nemo_class in (kind.nemo_class, kind.hybrid)
        return [kind.buffered == buffered, kind.streaming == streaming, known, kind.head == head]

    return max(KINDS, key=agreement)


def _is_cache_aware(encoder: dict) -> bool:
    """Whether the encoder has limited contexts, and is no offline one of attention within a window."""
    if all(pair == [-1, -1] for pair in contexts(encoder)):
        return False
    local = is_local(encoder) and encoder.get("att_context_style", "regular") == "regular"
    return not local and any(encoder.get(key, default) != needed for key, (default, needed) in _OFFLINE_ENCODER.items())


def nemo_class_of(config: dict) -> str:
    """The last part of a config's `target`, or the class that it differs from in training alone."""
    found = str(config.get("target", "")).rpartition(".")[2]
    return _TRAINED_OTHERWISE.get(found, found)


def is_hybrid(config: dict) -> bool:
    """Whether the model has another decoder beside its transducer."""
    return nemo_class_of(config) == HYBRID


def prompt_defaults(config: dict) -> dict:
    """The section in which NeMo keeps a prompt model's dictionary."""
    return config.get("model_defaults") or {}


def durations(config: dict) -> tuple[int, ...]:
    """Durations of a TDT model, in encoder frames and in the order of the joint's outputs: those of the loss, which NeMo writes
    over those of `decoding` (set_decoding_type_according_to_loss), else these. Empty for an RNNT model."""
    decoding, loss = config.get("decoding") or {}, config.get("loss") or {}
    trained = (loss.get("tdt_kwargs") or {}).get("durations") if loss.get("loss_name") == "tdt" else None
    return tuple(int(d) for d in trained or decoding.get("durations") or ())


def vocabulary(config: dict) -> Any:
    """The pieces of a model, without blank, as the config lists them; None where it does not."""
    return (config.get("decoder" if _is_ctc(config) else "joint") or {}).get("vocabulary")


def _is_ctc(config: dict) -> bool:
    """Whether the model has a CTC decoder and nothing else."""
    return nemo_class_of(config).startswith("EncDecCTC")


def is_tdt(config: dict) -> bool:
    """Whether a transducer also scores durations."""
    return bool(durations(config)) or (config.get("loss") or {}).get("loss_name") == "tdt"


def is_local(encoder: dict) -> bool:
    """Whether the encoder has NeMo's local attention. It is attention of full context within a window; where the window's sides
    differ, NeMo 3.0.0 adds the positions of other distances."""
    return encoder.get("self_attention_model") == "rel_pos_local_attn"


def attention_window(encoder: dict) -> int | None:
    """How many encoder frames an offline encoder attends to on either side; None for all."""
    widest = contexts(encoder)[0][0]
    return None if widest == -1 else widest


def windows(encoder: dict) -> tuple[tuple[int, ...], ...]:
    """Left contexts, chunks and right contexts that a buffered encoder was trained with, in encoder frames."""
    return tuple(tuple(menu) for menu in encoder["att_chunk_context_size"])


def contexts(encoder: dict) -> list[list[int]]:
    """[left, right] of each lookahead, in encoder frames; NeMo writes one pair, or a list of them."""
    found: Any = encoder.get("att_context_size") or [[-1, -1]]
    return [found] if isinstance(found[0], int) else [list(pair) for pair in found]
