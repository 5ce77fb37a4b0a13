"""NeMo models of the published structures, for any size, and the tokenizer that goes with them.

The structures are those of published models (``kinds``, ``presets``). Only the numbers of ``Dimensions`` differ between them and
the small ones; everything that an exporter can trip over is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import kinds, prompt
from .presets import PRESETS as PRESETS
from .presets import Dimensions

MODULES = "nemo.collections.asr.modules"


def write_tokenizer(
    lines: Iterable[str], vocabulary: int, folder: Path, symbols: Sequence[str] = (), appended: Sequence[str] = ()
) -> Path:
    """Trains a sentencepiece BPE tokenizer in NeMo's files: tokenizer.model, tokenizer.vocab, vocab.txt. Returns the folder.

    Each of ``symbols``, such as a language tag, is one token wherever it stands; so is each of ``appended``, behind all others.
    Raises ValueError where the text is too poor for that many tokens.
    """
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "text.txt"
    corpus.write_text("\n".join(lines))
    try:
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus),
            model_prefix=str(folder / "tokenizer"),
            vocab_size=vocabulary - len(appended),
            model_type="bpe",
            character_coverage=1.0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            unk_id=0,
            num_threads=1,
            minloglevel=2,
            user_defined_symbols=list(symbols),
        )
    except RuntimeError as error:
        raise ValueError(f"no tokenizer of {vocabulary} tokens from this text; give it more words") from error
    path = folder / "tokenizer.model"
    path.write_bytes(with_pieces(path.read_bytes(), appended))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    (folder / "vocab.txt").write_text("".join(pieces.id_to_piece(i) + "\n" for i in range(pieces.get_piece_size())))
    return folder


def with_pieces(tokenizer: bytes, texts: Sequence[str], *, control: bool = False) -> bytes:
    """Returns a SentencePiece model with further pieces behind its own: user-defined symbols, or control symbols."""
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2  # classes made at run time, which no type checker sees
    trained, types = messages.ModelProto.FromString(tokenizer), messages.ModelProto.SentencePiece
    for text in texts:
        trained.pieces.add(piece=text, score=0.0, type=types.CONTROL if control else types.USER_DEFINED)
    return trained.SerializeToString()


def config(size: Dimensions, tokenizer_folder: Path) -> Any:
    """OmegaConf configuration of the model of that size, see `nemo_class`."""
    from omegaconf import OmegaConf

    own = kinds.config_sections(size.kind)
    shared = dict(
        sample_rate=16000,
        compute_eval_loss=False,
        log_prediction=False,
        skip_nan_grad=False,
        train_ds=None,
        validation_ds=None,
        test_ds=None,
        tokenizer=dict(dir=str(tokenizer_folder), type="bpe"),
        preprocessor=dict(
            _target_=f"{MODULES}.AudioToMelSpectrogramPreprocessor",
            sample_rate=16000,
            window_size=0.025,
            window_stride=0.01,
            window="hann",
            features=size.n_mels,
            n_fft=512,
            log=True,
            frame_splicing=1,
            dither=1e-5,
            pad_to=0,
            pad_value=0.0,
            **own["preprocessor"],
        ),
        spec_augment=dict(
            _target_=f"{MODULES}.SpectrogramAugmentation", freq_masks=2, time_masks=3, freq_width=20, time_width=0.05
        ),
        encoder=_encoder(size) | own["encoder"] | _local_attention(size),
        optim=dict(name="adamw", lr=1e-3),
    )
    if size.decoders == "ctc":
        return OmegaConf.create(shared | _ctc() | dict(ctc_reduction="mean_batch"))
    hybrid = dict(aux_ctc=_ctc() | dict(ctc_loss_weight=0.3, use_cer=False)) if size.decoders == "hybrid" else {}
    return OmegaConf.create(shared | _transducer(size, own) | hybrid)


def _encoder(size: Dimensions) -> dict[str, Any]:
    return dict(
        _target_=f"{MODULES}.ConformerEncoder",
        feat_in=size.n_mels,
        feat_out=-1,
        n_layers=size.n_layers,
        d_model=size.d_model,
        use_bias=size.use_bias,
        subsampling="dw_striding",
        subsampling_factor=8,
        subsampling_conv_channels=size.subsampling_channels,
        reduction=None,
        reduction_position=None,
        reduction_factor=1,
        ff_expansion_factor=4,
        self_attention_model="rel_pos",
        n_heads=size.n_heads,
        att_context_probs=None,
        xscaling=size.xscaling,
        untie_biases=True,
        pos_emb_max_len=5000,
        conv_kernel_size=9,
        dropout=size.dropout,
        dropout_pre_encoder=0.0,
        dropout_emb=0.0,
        dropout_att=size.dropout,
        stochastic_depth_drop_prob=0.0,
        stochastic_depth_mode="linear",
        stochastic_depth_start_layer=1,
    )


def _local_attention(size: Dimensions) -> dict[str, Any]:
    width = size.local_attention
    return dict(self_attention_model="rel_pos_local_attn", att_context_size=[width, width]) if width else {}


def _ctc() -> dict[str, Any]:
    """A CTC decoder, whose sizes NeMo takes from encoder and tokenizer, and its decoding."""
    return dict(
        decoder=dict(_target_=f"{MODULES}.ConvASRDecoder", feat_in=None, num_classes=-1, vocabulary=[]),
        decoding=dict(strategy="greedy"),
    )


def _transducer(size: Dimensions, own: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """own: sections of the kind."""
    return dict(
        rnnt_reduction="mean_volume",
        model_defaults=dict(
            enc_hidden=size.d_model,
            pred_hidden=size.predictor_hidden,
            joint_hidden=size.joint_hidden,
            **own["model_defaults"],
        ),
        decoder=dict(
            _target_=f"{MODULES}.RNNTDecoder",
            normalization_mode=None,
            random_state_sampling=False,
            blank_as_pad=True,
            prednet=dict(
                pred_hidden=size.predictor_hidden,
                pred_rnn_layers=size.predictor_layers,
                t_max=None,
                dropout=size.decoder_dropout,
            ),
        ),
        # The dropout must stay above zero: NeMo names the joint's last layer joint_net.2 with it and joint_net.1 without.
        joint=dict(
            _target_=f"{MODULES}.RNNTJoint",
            log_softmax=None,
            preserve_memory=False,
            fuse_loss_wer=False,
            fused_batch_size=-1,
            jointnet=dict(joint_hidden=size.joint_hidden, activation="relu", dropout=size.decoder_dropout),
            **own["joint"],
        ),
        decoding=dict(
            strategy="greedy_batch",
            greedy=dict(max_symbols=10, use_cuda_graph_decoder=False),
            beam=dict(beam_size=2, return_best_hypothesis=False, score_norm=True),
            **own["decoding"],
        ),
        loss=own["loss"],
    )


def nemo_class(size: Dimensions) -> Any:
    """NeMo's class of a model of that size."""
    from nemo.collections.asr import models
    from nemo.collections.asr.models.rnnt_bpe_models_prompt import EncDecRNNTBPEModelWithPrompt

    if size.decoders == "transducer":
        return EncDecRNNTBPEModelWithPrompt if size.kind == "prompt" else models.EncDecRNNTBPEModel
    return models.EncDecHybridRNNTCTCBPEModel if size.decoders == "hybrid" else models.EncDecCTCModelBPE


def build(size: Dimensions, tokenizer_folder: Path) -> Any:
    """Builds a freshly initialised model, see `nemo_class`."""
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
    return ready(nemo_class(size)(config(size, tokenizer_folder)))


def ready(asr: Any) -> Any:
    """Sets the prompt of a model's streaming steps to ``auto``, as NeMo leaves the prompt out until one is set."""
    if prompt.is_prompted(asr):
        asr.set_inference_prompt(prompt.AUTO)
    return asr


def restore(path: Path) -> Any:
    """Restores the model of a .nemo file on the CPU, in eval mode and without dither (NeMo restores in train mode)."""
    import torch
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
    model: Any = ASRModel.restore_from(str(path), map_location=torch.device("cpu"))
    model.eval()
    model.preprocessor.featurizer.dither = 0.0
    return ready(model)


def save(model: Any, path: Path) -> None:
    """Saves a model as a .nemo file, written beside its place and renamed."""
    partial = path.with_name(f".{path.stem}.partial.nemo")
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save_to(str(partial))
    partial.replace(path)
