"""Hybrid models: a transducer and a CTC decoder over one encoder. One of the two heads is exported, as if it were the only one.

A build has one head, because its gates judge one. NeMo decodes with the transducer unless it is told otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemoport.errors import UsageError
from nemoport.export.kinds import CTC_MODEL, is_hybrid, kind_of
from nemoport.spec import CTC

if TYPE_CHECKING:
    from torch import Tensor

_CTC_WEIGHTS, _TRANSDUCER_WEIGHTS = "ctc_decoder.", ("decoder.", "joint.")


def of_head(config: dict, head: str) -> dict:
    """Returns the config of a model with the one head: of a hybrid that of the transducer, which is as it stands, or of the CTC
    model. head: rnnt, tdt, ctc, or "" for NeMo's choice. Raises UsageError for a head that the model does not have."""
    transducer = kind_of(config).head
    heads = (transducer, CTC) if is_hybrid(config) else (transducer,)
    if head and head not in heads:
        raise UsageError(
            f"The model has no head {head!r}.",
            expected=" or ".join(heads),
            found=head,
            todo="choose one of these, or leave it out",
        )
    return _ctc_config(config) if head == CTC and is_hybrid(config) else config


def _ctc_config(config: dict) -> dict:
    """The config of EncDecCTCModelBPE, as NeMo's class of the hybrid fills it in (hybrid_rnnt_ctc_bpe_models.py): the decoder's
    vocabulary is the tokenizer's, as the joint's is."""
    aux, joint = config.get("aux_ctc"), config.get("joint")
    decoder = aux.get("decoder") if isinstance(aux, dict) else None
    pieces = joint.get("vocabulary") if isinstance(joint, dict) else None
    kept = {name: value for name, value in config.items() if name not in ("aux_ctc", "joint", "loss", "decoding", "decoder")}
    sections = {"decoder": {**decoder, "vocabulary": pieces}} if isinstance(decoder, dict) else {}
    return {**kept, **sections, "target": f"nemo.collections.asr.models.{CTC_MODEL}"}


def weights_of(weights: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    """Returns a hybrid's tensors of the encoder and one head, by the names that a model of that head alone gives them."""
    if head != CTC:
        return {name: tensor for name, tensor in weights.items() if not name.startswith(_CTC_WEIGHTS)}
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(_TRANSDUCER_WEIGHTS)}
    return {name.removeprefix("ctc_") if name.startswith(_CTC_WEIGHTS) else name: tensor for name, tensor in kept.items()}
