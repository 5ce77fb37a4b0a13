"""Writes the config by which NeMo builds a checkpoint's model, from what nemoport itself read of the checkpoint.

NeMo instantiates whatever a config names under `_target_`, and its list of what may be named contains functions that write
files and load code. A checkpoint may come from a stranger, so NeMo never reads its config: the classes here are a fixed table,
each value is one that export/hyperparameters.py or export/kinds.py bounds or requires, and the paths are of our own files.
"""

from __future__ import annotations

from pathlib import Path

from nemoport.errors import CheckpointError
from nemoport.export.checkpoint import Checkpoint
from nemoport.export.hyperparameters import number
from nemoport.export.kinds import contexts, is_local, kind_named
from nemoport.spec import CTC

_MODULES = "nemo.collections.asr.modules"
_FREE_ENCODER = (
    "n_layers",
    "d_model",
    "n_heads",
    "conv_kernel_size",
    "subsampling_conv_channels",
    "ff_expansion_factor",
    "pos_emb_max_len",
)
# In seconds, or in samples.
_WINDOW = ("window_size", "window_stride", "n_window_size", "n_window_stride")


def nemo_config(checkpoint: Checkpoint, folder: Path) -> dict:
    """The config of NeMo's model class for a checkpoint. folder: an existing one, which its tokenizer is written into. Raises
    CheckpointError for a checkpoint without one.

    Of the keys of its class's config, what training alone uses is left out; dropout stays, because the joint's linear
    layer is numbered behind it. Decoding is greedy, by the batch, as NeMo's own default.
    """
    spec, read = checkpoint.spec, checkpoint.config
    required = _required(checkpoint)
    frontend = spec.frontend
    return {
        "sample_rate": frontend.sample_rate_hz,
        "compute_eval_loss": False,
        "log_prediction": False,
        "model_defaults": {
            "enc_hidden": spec.encoder.d_model,
            "pred_hidden": spec.decoding.pred_hidden,
            "joint_hidden": spec.decoding.joint_hidden,
            **_prompt(checkpoint),
        },
        "tokenizer": _tokenizer(checkpoint, folder),
        "preprocessor": {
            **required["preprocessor"],
            "_target_": f"{_MODULES}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": frontend.sample_rate_hz,
            "features": frontend.n_mels,
            "n_fft": frontend.n_fft,
            **{key: read["preprocessor"].get(key) for key in _WINDOW},
            "preemph": frontend.preemphasis,
            "log_zero_guard_value": frontend.log_guard,
            "dither": 0.0,
            "pad_to": 0,
        },
        "encoder": {
            **required["encoder"],
            **{key: number(read, f"encoder.{key}") for key in _FREE_ENCODER},
            "_target_": f"{_MODULES}.ConformerEncoder",
            "feat_in": frontend.n_mels,
            **{key: bool(read["encoder"].get(key, True)) for key in ("use_bias", "xscaling")},
            **_attention(checkpoint),
        },
        **(_ctc(checkpoint) if spec.head == CTC else _transducer(checkpoint)),
    }


def _required(checkpoint: Checkpoint) -> dict[str, dict]:
    sections = kind_named(checkpoint.spec.kind).sections
    return {name: {key: value for key, (_, value) in keys.items()} for name, keys in sections.items()}


def _ctc(checkpoint: Checkpoint) -> dict:
    return {
        "decoder": {
            **_required(checkpoint)["decoder"],
            "_target_": f"{_MODULES}.ConvASRDecoder",
            "feat_in": checkpoint.spec.encoder.d_model,
            "num_classes": checkpoint.spec.decoding.vocab_size,
            "vocabulary": list(checkpoint.tokens),
        },
        "decoding": {"strategy": "greedy_batch"},
    }


def _transducer(checkpoint: Checkpoint) -> dict:
    spec, read = checkpoint.spec, checkpoint.config
    durations = list(spec.decoding.durations)
    return {
        "decoder": {
            **_required(checkpoint)["decoder"],
            "_target_": f"{_MODULES}.RNNTDecoder",
            "vocab_size": spec.decoding.vocab_size,
            "prednet": {
                "pred_hidden": spec.decoding.pred_hidden,
                "pred_rnn_layers": spec.decoding.pred_layers,
                "dropout": number(read, "decoder.prednet.dropout"),
            },
        },
        "joint": {
            "_target_": f"{_MODULES}.RNNTJoint",
            "log_softmax": None,
            "fuse_loss_wer": False,
            "num_extra_outputs": len(durations),
            "num_classes": spec.decoding.vocab_size,
            "vocabulary": list(checkpoint.tokens),
            "jointnet": {
                "joint_hidden": spec.decoding.joint_hidden,
                "encoder_hidden": spec.encoder.d_model,
                "pred_hidden": spec.decoding.pred_hidden,
                "activation": "relu",
                "dropout": number(read, "joint.jointnet.dropout"),
            },
        },
        "decoding": {
            "strategy": "greedy_batch",
            "strip_lang_tags": (read.get("decoding") or {}).get("strip_lang_tags") is True,
            "greedy": {"max_symbols": spec.decoding.max_symbols_per_frame, "use_cuda_graph_decoder": False},
            "beam": {"beam_size": 2, "return_best_hypothesis": False, "score_norm": True},
            **({"model_type": "tdt", "durations": durations} if durations else {"model_type": "rnnt"}),
        },
        "loss": {"loss_name": "tdt", "tdt_kwargs": {"durations": durations}} if durations else {"loss_name": "default"},
    }


def _attention(checkpoint: Checkpoint) -> dict:
    if buffered := checkpoint.spec.buffered:
        menus = [list(menu) for menu in (buffered.lefts, buffered.chunks, buffered.rights)]
        return {"self_attention_model": "rel_pos", "att_context_size": [-1, -1], "att_chunk_context_size": menus}
    pairs = contexts(encoder := checkpoint.config["encoder"])
    if is_local(encoder):  # NeMo's local attention takes one pair, not a list
        return {"self_attention_model": "rel_pos_local_attn", "att_context_size": pairs[0]}
    return {"self_attention_model": "rel_pos", "att_context_size": pairs}


def _prompt(checkpoint: Checkpoint) -> dict:
    prompt = checkpoint.spec.prompt
    if prompt is None:
        return {}
    return {"initialize_prompt_feature": True, "num_prompts": prompt.slots, "prompt_dictionary": dict(prompt.languages)}


def _tokenizer(checkpoint: Checkpoint, folder: Path) -> dict:
    if not checkpoint.tokenizer:
        raise CheckpointError(
            f"NeMo cannot restore {checkpoint.path}.",
            expected="a SentencePiece model in the archive, which the config names as tokenizer.model_path",
            found="none",
            todo="save it again with NeMo",
        )
    model, vocabulary = folder / "tokenizer.model", folder / "vocab.txt"
    model.write_bytes(checkpoint.tokenizer)
    vocabulary.write_text("".join(f"{piece}\n" for piece in checkpoint.tokens), encoding="utf-8")
    return {"dir": str(folder), "type": "bpe", "model_path": str(model), "vocab_path": str(vocabulary)}
