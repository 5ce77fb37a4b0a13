"""What to do about a model that is not exported, by the setting that is the reason."""

from __future__ import annotations

from collections.abc import Iterable

ANOTHER = "use a checkpoint of that kind"
_FULL = (
    "if it was put on a model of full context for long recordings, take it off in NeMo and save the model again: "
    "model.change_attention_model('rel_pos', [-1, -1]); model.save_to('model.nemo'); nemoport has windows for long recordings"
)
_FRONT_END = "the weights were trained for that front end: use a checkpoint with NeMo's usual one"
UNKNOWN = (
    "an unknown option may be of a newer NeMo: if it has no effect at inference, remove it from model_config.yaml in the archive"
)
# Part of a reason -> what to do; the longest one counts.
ADVICE = {
    "target is EncDecCTCModel": "its tokens are characters: use a model with a SentencePiece tokenizer (EncDecCTCModelBPE)",
    "target is EncDecRNNTModel": "its tokens are characters: use a model with a SentencePiece tokenizer (EncDecRNNTBPEModel)",
    "target is EncDecHybridRNNTCTCModel": "its tokens are characters: use EncDecHybridRNNTCTCBPEModel",
    "target is EncDecHybridRNNTCTCBPEModelWithPrompt": "its prompt is of another structure: use EncDecRNNTBPEModelWithPrompt",
    "target is EncDecMultiTaskModel": "Canary writes text by attention (AED): use Parakeet or Nemotron, which are transducers",
    "target is SortformerEncLabelModel": "it finds speakers, and writes no text: use a speech recogniser",
    "target is EncDecSpeakerLabelModel": "it names speakers, and writes no text: use a speech recogniser",
    "target is EncDecMultiTalkerRNNTBPEModel": "it takes the speakers as a further input: use a model of one speaker",
    "target is EncDecClassificationModel": "it names classes, and writes no text: use a speech recogniser",
    "target is SALM": "a language model with speech input: use a transducer",
    "model_type is": "use a Parakeet or Nemotron model of these types, or its .nemo",
    "encoder._target_": "use a model with a FastConformer encoder",
    "encoder.adapters is": "take the adapters out of the model in NeMo, or merge them into it, and save it again",
    "joint.num_extra_outputs": "a multi-blank transducer, or a TDT without loss.tdt_kwargs.durations: use RNNT or a TDT",
    "decoder._target_": "use a model with an LSTM for its prediction (RNNTDecoder), which is NeMo's default",
    "joint._target_": "use a model with NeMo's default joint (RNNTJoint)",
    "preprocessor.": _FRONT_END,
    "encoder.self_attention_model": _FULL,
    "attention of a limited width": _FULL,
    "encoder.subsampling": "FastConformer models reduce frames by 8 with dw_striding, older Conformers by 4: use a FastConformer",
    "tokenizer.type is 'wpe'": "NeMo joins its ## pieces by a vocabulary that it downloads: train with a SentencePiece tokenizer "
    "(type bpe), or transcribe with NeMo",
    "tokenizer.type is 'agg'": "use a model with one tokenizer for its languages",
    "an unknown option": UNKNOWN,
    "tokenizer.": "use a model with a plain SentencePiece tokenizer",
}


def advice(problems: Iterable[str]) -> str:
    """Returns what to do about reasons of unsupported.py, each advice once."""
    found = dict.fromkeys(_advice(problem) for problem in problems)
    return "; ".join(found) or ANOTHER


def _advice(problem: str) -> str:
    matching = [part for part in ADVICE if part in problem]
    return ADVICE[max(matching, key=len)] if matching else ANOTHER
