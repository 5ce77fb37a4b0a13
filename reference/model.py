"""NeMo models of the published structures, for any size, and the tokenizer that goes with them.

Published, by kind (``kinds``): "streaming" is nvidia/nemotron-speech-streaming-en-0.6b, "prompt" is
nvidia/nemotron-3.5-asr-streaming-0.6b and "tdt" is nvidia/parakeet-tdt-0.6b-v3. Only the numbers of ``Dimensions`` differ
between them and the small ones; everything that an exporter can trip over is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import kinds, prompt


@dataclass(frozen=True)
class Dimensions:
    """Sizes and kind of one model; ``dropout`` regularises the encoder, ``decoder_dropout`` predictor and joint."""

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


PRESETS = {
    "nemotron-en-0.6b": Dimensions(24, 1024, 8, 256, 640, 640, 1024),
    "reference": Dimensions(6, 176, 4, 64, 160, 160, 96, dropout=0.05),
    "tiny": Dimensions(2, 64, 4, 32, 32, 32, 64),
    "nemotron-3.5-asr-0.6b": Dimensions(24, 1024, 8, 256, 640, 640, 13087, kind="prompt"),
    "reference-multilingual": Dimensions(6, 176, 4, 64, 160, 160, 448, dropout=0.05, kind="prompt"),
    "tiny-multilingual": Dimensions(2, 64, 4, 32, 32, 32, 160, kind="prompt"),
    "parakeet-tdt-0.6b-v3": Dimensions(24, 1024, 8, 256, 640, 640, 8192, kind="tdt"),
    "reference-tdt": Dimensions(6, 176, 4, 64, 160, 160, 128, dropout=0.05, kind="tdt"),
    "tiny-tdt": Dimensions(2, 64, 4, 32, 32, 32, 96, kind="tdt"),
}


def write_tokenizer(lines: Iterable[str], vocabulary: int, folder: Path, symbols: Sequence[str] = ()) -> Path:
    """Trains a sentencepiece BPE tokenizer in NeMo's files: tokenizer.model, tokenizer.vocab, vocab.txt. Returns the folder.

    Each of ``symbols``, such as a language tag, is one token wherever it stands.
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
            vocab_size=vocabulary,
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
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    (folder / "vocab.txt").write_text("".join(pieces.id_to_piece(i) + "\n" for i in range(pieces.get_piece_size())))
    return folder


def config(size: Dimensions, tokenizer_folder: Path) -> Any:
    """OmegaConf configuration of an EncDecRNNTBPEModel, or an EncDecRNNTBPEModelWithPrompt for the kind "prompt"."""
    from omegaconf import OmegaConf

    modules = "nemo.collections.asr.modules"
    own = kinds.config_sections(size.kind)
    return OmegaConf.create(
        dict(
            sample_rate=16000,
            compute_eval_loss=False,
            log_prediction=False,
            rnnt_reduction="mean_volume",
            skip_nan_grad=False,
            train_ds=None,
            validation_ds=None,
            test_ds=None,
            model_defaults=dict(
                enc_hidden=size.d_model,
                pred_hidden=size.predictor_hidden,
                joint_hidden=size.joint_hidden,
                **own["model_defaults"],
            ),
            tokenizer=dict(dir=str(tokenizer_folder), type="bpe"),
            preprocessor=dict(
                _target_=f"{modules}.AudioToMelSpectrogramPreprocessor",
                sample_rate=16000,
                window_size=0.025,
                window_stride=0.01,
                window="hann",
                features=128,
                n_fft=512,
                log=True,
                frame_splicing=1,
                dither=1e-5,
                pad_to=0,
                pad_value=0.0,
                **own["preprocessor"],
            ),
            spec_augment=dict(
                _target_=f"{modules}.SpectrogramAugmentation", freq_masks=2, time_masks=3, freq_width=20, time_width=0.05
            ),
            encoder=dict(
                _target_=f"{modules}.ConformerEncoder",
                feat_in=128,
                feat_out=-1,
                n_layers=size.n_layers,
                d_model=size.d_model,
                use_bias=False,
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
                xscaling=False,
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
                **own["encoder"],
            ),
            decoder=dict(
                _target_=f"{modules}.RNNTDecoder",
                normalization_mode=None,
                random_state_sampling=False,
                blank_as_pad=True,
                prednet=dict(pred_hidden=size.predictor_hidden, pred_rnn_layers=2, t_max=None, dropout=size.decoder_dropout),
            ),
            # The dropout must stay above zero: NeMo names the joint's last layer joint_net.2 with it and joint_net.1 without.
            joint=dict(
                _target_=f"{modules}.RNNTJoint",
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
            optim=dict(name="adamw", lr=1e-3),
        )
    )


def build(size: Dimensions, tokenizer_folder: Path) -> Any:
    """Builds a freshly initialised EncDecRNNTBPEModel, or an EncDecRNNTBPEModelWithPrompt for the kind "prompt"."""
    from nemo.collections.asr.models import EncDecRNNTBPEModel
    from nemo.collections.asr.models.rnnt_bpe_models_prompt import EncDecRNNTBPEModelWithPrompt
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
    model_class = EncDecRNNTBPEModelWithPrompt if size.kind == "prompt" else EncDecRNNTBPEModel
    return ready(model_class(config(size, tokenizer_folder)))


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
