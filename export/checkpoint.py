"""Reads a .nemo file: its kind, its specs from its own config, its weights. Refuses what cannot be exported."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from nemoport.errors import CheckpointError, first_line
from nemoport.export.archive import member, opened, unreadable
from nemoport.export.kinds import LOG_GUARD, contexts, durations, kind_of, prompt_defaults, unsupported
from nemoport.export.source import resolve
from nemoport.files import sha256_file
from nemoport.prompt import PromptSpec
from nemoport.spec import DecodingSpec, FrontendSpec, ModelSpec, OfflineSpec, StreamingSpec


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be exported.

    config: model_config.yaml, whole; tokens: pieces by id, without blank; tokenizer: bytes of the SentencePiece model, empty
    where the archive has none; base_model: the Hub id that the checkpoint was downloaded by, or "".
    """

    path: Path
    sha256: str
    spec: ModelSpec
    config: dict = field(repr=False)
    tokens: tuple[str, ...] = field(repr=False)
    tokenizer: bytes = field(repr=False)
    base_model: str = ""

    @property
    def name(self) -> str:
        return self.path.stem

    def load_weights(self) -> dict:
        """Loads name -> f32 tensor, on the CPU. Raises CheckpointError."""
        import torch

        with opened(self.path) as tar:
            try:
                stream = member(tar, "model_weights.ckpt")
                # torch does not verify the checksums that it writes.
                if zipfile.is_zipfile(stream) and (damaged := zipfile.ZipFile(stream).testzip()):
                    raise unreadable(self.path, f"model_weights.ckpt: {damaged} differs from its checksum")
                stream.seek(0)
                weights = torch.load(stream, map_location="cpu", weights_only=True)
            except CheckpointError:
                raise
            except Exception as error:  # torch raises many kinds for a damaged file
                raise unreadable(self.path, f"model_weights.ckpt: {first_line(error)}") from error
        if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
            raise unreadable(self.path, "model_weights.ckpt: something else than named tensors")
        return {name: tensor.float() for name, tensor in weights.items()}


def read_checkpoint(checkpoint: str) -> Checkpoint:
    """Reads a checkpoint by its path or Hub id (source.py).

    Raises CheckpointError if the file is damaged, or naming every reason for which the model is not exported.
    """
    path, base_model = resolve(str(checkpoint))
    config, tokenizer = _read_config(path)
    try:
        problems = unsupported(config)
        spec = None if problems else _spec(config)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:  # not of the form that NeMo writes
        raise unreadable(path, f"model_config.yaml: {type(error).__name__}: {error}") from error
    if spec is None:
        raise CheckpointError(
            f"{path} is not a model that nemoport exports.",
            expected="a FastConformer transducer (NeMo EncDecRNNTBPEModel, or EncDecRNNTBPEModelWithPrompt): cache-aware "
            "RNNT, with or without a language prompt, or full-context RNNT or TDT; "
            f"by its attention context this is {kind_of(config).name}",
            found="; ".join(problems),
            todo="use a checkpoint of that kind",
        )
    tokens = tuple(config["joint"]["vocabulary"])
    return Checkpoint(path, sha256_file(path), spec, config, tokens, tokenizer, base_model)


def _read_config(path: Path) -> tuple[dict, bytes]:
    import yaml

    with opened(path) as tar:
        try:
            config = yaml.safe_load(member(tar, "model_config.yaml").read())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise unreadable(path, f"model_config.yaml: {first_line(error)}") from error
        if not isinstance(config, dict):
            raise unreadable(path, f"a model_config.yaml that holds {type(config).__name__}, not a mapping")
        section = config.get("tokenizer")
        model = str(section.get("model_path", "")) if isinstance(section, dict) else ""
        tokenizer = member(tar, model.removeprefix("nemo:")).read() if model.startswith("nemo:") else b""
        member(tar, "model_weights.ckpt")
    return config, tokenizer


def _spec(config: dict) -> ModelSpec:
    decoder, mel, kind = config["decoder"], config["preprocessor"], kind_of(config)
    rate = int(mel["sample_rate"])
    greedy = (config.get("decoding") or {}).get("greedy") or {}
    return ModelSpec(
        kind=kind.name,
        frontend=FrontendSpec(
            sample_rate_hz=rate,
            n_mels=int(mel["features"]),
            n_fft=int(mel.get("n_fft") or 512),
            win_samples=int(mel["window_size"] * rate),
            hop_samples=int(mel["window_stride"] * rate),
            preemphasis=float(mel.get("preemph", 0.97)),
            log_guard=float(mel.get("log_zero_guard_value", LOG_GUARD)),
            normalize=mel.get("normalize", "per_feature"),
        ),
        streaming=_streaming(config["encoder"]) if kind.streaming else None,
        offline=None if kind.streaming else OfflineSpec(**_sizes(config["encoder"])),
        decoding=DecodingSpec(
            vocab_size=len(config["joint"]["vocabulary"]),
            pred_layers=int(decoder["prednet"]["pred_rnn_layers"]),
            pred_hidden=int(decoder["prednet"]["pred_hidden"]),
            joint_hidden=int(config["joint"]["jointnet"]["joint_hidden"]),
            max_symbols_per_frame=int(greedy.get("max_symbols") or greedy.get("max_symbols_per_step") or 10),
            durations=durations(config),
        ),
        prompt=_prompt(prompt_defaults(config)) if kind.prompt else None,
    )


def _prompt(defaults: dict) -> PromptSpec:
    return PromptSpec(int(defaults.get("num_prompts", 128)), dict(defaults["prompt_dictionary"]))


def _sizes(encoder: dict) -> dict[str, int]:
    return {name: int(encoder[name]) for name in ("n_layers", "d_model", "n_heads", "subsampling_factor")}


def _streaming(encoder: dict) -> StreamingSpec:
    pairs = contexts(encoder)
    return StreamingSpec(
        **_sizes(encoder),
        left_context_enc_frames=pairs[0][0],
        lookaheads=tuple(right for _, right in pairs),
        conv_cache_frames=int(encoder["conv_kernel_size"]) - 1,
        pre_encode_cache_mel_frames=int(encoder["subsampling_factor"]) + 1,  # ConvSubsampling's, when causal
    )
