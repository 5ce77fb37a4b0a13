"""Reads a .nemo file: what it is, its specs from its own config, its weights. Refuses what cannot be exported."""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from nemoport.artifact import sha256_file
from nemoport.errors import CheckpointError
from nemoport.spec import DecodingSpec, FrontendSpec, ModelSpec, StreamingSpec

STREAMING_RNNT = "streaming-rnnt"
LOG_GUARD = 2.0**-24  # NeMo AudioToMelSpectrogramPreprocessor's default log_zero_guard_value
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error)  # older .nemo files are gzipped
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be exported. `tokens` excludes blank; `tokenizer` is the SentencePiece model's bytes."""

    path: Path
    sha256: str
    spec: ModelSpec
    config: dict = field(repr=False)
    tokens: tuple[str, ...] = field(repr=False)
    tokenizer: bytes = field(repr=False)
    base_model: str = ""  # the Hub id it was named by, where it was

    @property
    def name(self) -> str:
        return self.path.stem

    def load_weights(self) -> dict:
        """name -> f32 tensor [...], on the CPU. Raises CheckpointError."""
        import torch

        with _opened(self.path) as tar:
            try:
                stream = _member(tar, "model_weights.ckpt")
                # torch does not look at the checksums that it writes.
                if zipfile.is_zipfile(stream) and (damaged := zipfile.ZipFile(stream).testzip()):
                    raise _unreadable(self.path, f"model_weights.ckpt: {damaged} differs from its checksum")
                stream.seek(0)
                weights = torch.load(stream, map_location="cpu", weights_only=True)
            except CheckpointError:
                raise
            except Exception as error:  # torch raises many kinds for a damaged file
                raise _unreadable(self.path, f"model_weights.ckpt: {_first_line(error)}") from error
        if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
            raise _unreadable(self.path, "model_weights.ckpt: something else than named tensors")
        return {name: tensor.float() for name, tensor in weights.items()}


def resolve(checkpoint: str) -> tuple[Path, str]:
    """A local path, or a Hub id such as org/name@revision, which is downloaded -> (path of the .nemo, Hub id or "")."""
    path = Path(checkpoint).expanduser()
    if path.exists():
        return path, ""
    match = HUB_ID.fullmatch(checkpoint)
    if checkpoint.endswith(".nemo") or not match:
        raise CheckpointError(
            f"There is no checkpoint at {checkpoint}.",
            expected="a .nemo file, or a Hub id such as nvidia/nemotron-speech-streaming-en-0.6b@revision",
            found="no such file",
            todo="check CHECKPOINT",
        )
    repo, revision = match["repo"], match["revision"]
    try:
        from huggingface_hub import HfApi, hf_hub_download

        files = HfApi().list_repo_files(repo, revision=revision)
        names = [name for name in files if name.endswith(".nemo")]
        if len(names) != 1:
            raise CheckpointError(
                f"{checkpoint} does not hold one checkpoint.",
                expected="one .nemo file",
                found=", ".join(names) or "none",
                todo="download the file you want and name its path",
            )
        return Path(hf_hub_download(repo, names[0], revision=revision)), checkpoint
    except ImportError as error:
        raise CheckpointError(
            f"{checkpoint} is no local file, and downloading needs huggingface_hub.",
            expected="a local .nemo file or an installed huggingface_hub",
            found=str(error),
            todo="pip install 'nemoport[publish]'",
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # the classes of huggingface_hub's HTTP client differ from version to version
        raise CheckpointError(
            f"{checkpoint} could not be downloaded.",
            expected="a reachable Hub repository (log in first if it is gated)",
            found=_first_line(error),
            todo="check the id, the revision, the network; or download the .nemo and name its path",
        ) from error


def read_checkpoint(checkpoint: str) -> Checkpoint:
    """Raises CheckpointError if the file is damaged, or naming every reason for which the model is not exported."""
    path, base_model = resolve(str(checkpoint))
    config, tokenizer = _read_config(path)
    try:
        problems = _unsupported(config)
        spec = None if problems else _spec(config)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:  # not laid out as NeMo writes it
        raise _unreadable(path, f"model_config.yaml: {type(error).__name__}: {error}") from error
    if spec is None:
        raise CheckpointError(
            f"{path} is not a model that nemoport exports.",
            expected="a cache-aware streaming FastConformer-RNNT (NeMo EncDecRNNTBPEModel)",
            found="; ".join(problems),
            todo="use a checkpoint of that kind",
        )
    tokens = tuple(config["joint"]["vocabulary"])
    return Checkpoint(path, sha256_file(path), spec, config, tokens, tokenizer, base_model)


def _read_config(path: Path) -> tuple[dict, bytes]:
    import yaml

    with _opened(path) as tar:
        try:
            config = yaml.safe_load(_member(tar, "model_config.yaml").read())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise _unreadable(path, f"model_config.yaml: {_first_line(error)}") from error
        if not isinstance(config, dict):
            raise _unreadable(path, f"a model_config.yaml that holds {type(config).__name__}, not a mapping")
        section = config.get("tokenizer")
        model = str(section.get("model_path", "")) if isinstance(section, dict) else ""
        tokenizer = _member(tar, model.removeprefix("nemo:")).read() if model.startswith("nemo:") else b""
        _member(tar, "model_weights.ckpt")
    return config, tokenizer


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)  # closed by the callers' `with`
    except _DAMAGE as error:
        raise _unreadable(path, str(error)) from error


def _member(tar: tarfile.TarFile, name: str):
    try:
        for member in tar.getmembers():  # walks to the end, which finds a truncated file; NeMo writes ./name
            if member.name.removeprefix("./") == name and member.isfile():
                return tar.extractfile(member)
    except _DAMAGE as error:
        raise _unreadable(Path(tar.name), f"{name}: {error}") from error
    raise _unreadable(Path(tar.name), f"no {name} in it")


def _unreadable(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read.",
        expected="a complete .nemo file (a tar with model_config.yaml and model_weights.ckpt)",
        found=found,
        todo="download or save it again",
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unsupported(config: dict) -> list[str]:
    """Every reason at once, each as `key is X, not Y`."""
    target = str(config.get("target", "")).rpartition(".")[2]
    problems = [] if target == "EncDecRNNTBPEModel" else [f"target is {target or 'absent'}, not EncDecRNNTBPEModel"]
    missing = [key for key in ("encoder", "decoder", "joint", "preprocessor") if not isinstance(config.get(key), dict)]
    problems += [f"the config has no {key}" for key in missing]
    required = {
        "encoder": {
            "self_attention_model": ("rel_pos", "rel_pos"),
            "att_context_style": ("regular", "chunked_limited"),
            "conv_norm_type": ("batch_norm", "layer_norm"),
            "conv_context_size": (None, "causal"),
            "subsampling": ("striding", "dw_striding"),
            "subsampling_factor": (4, 8),
            "causal_downsampling": (False, True),
            "xscaling": (True, False),
            "untie_biases": (True, True),
            "reduction": (None, None),
            "global_tokens": (0, 0),
        },
        "decoder": {"normalization_mode": (None, None), "blank_as_pad": (True, True)},
        "joint": {"num_extra_outputs": (0, 0)},
        "preprocessor": {
            "window": ("hann", "hann"),
            "normalize": ("per_feature", "NA"),
            "log": (True, True),
            "frame_splicing": (1, 1),
            "mag_power": (2.0, 2.0),
            "mel_norm": ("slaney", "slaney"),
            "exact_pad": (False, False),
            "lowfreq": (0, 0),
            "highfreq": (None, None),
            "log_zero_guard_type": ("add", "add"),
            "log_zero_guard_value": (LOG_GUARD, LOG_GUARD),
        },
    }
    for section, keys in required.items():
        found = config.get(section)
        for key, (default, needed) in keys.items() if isinstance(found, dict) else ():
            value = found.get(key, default)
            if value != needed:
                problems.append(f"{section}.{key} is {value!r}, not {needed!r}")
    if not missing:
        activation = config["joint"].get("jointnet", {}).get("activation")
        if activation != "relu":
            problems.append(f"joint.jointnet.activation is {activation!r}, not 'relu'")
        if not config["joint"].get("vocabulary"):
            problems.append("joint.vocabulary is absent")
        problems += _context_problems(config["encoder"])
    if str((config.get("loss") or {}).get("loss_name")) == "tdt":
        problems.append("loss.loss_name is 'tdt': a TDT model")
    return problems


def _contexts(encoder: dict) -> list[list[int]]:
    contexts = encoder.get("att_context_size") or [[-1, -1]]
    return [contexts] if isinstance(contexts[0], int) else [list(c) for c in contexts]


def _context_problems(encoder: dict) -> list[str]:
    contexts = _contexts(encoder)
    if any(len(c) != 2 or c[0] <= 0 or c[1] < 0 for c in contexts):
        return [f"encoder.att_context_size is {contexts}: not cache-aware (limited left and right contexts)"]
    lefts, rights = {left for left, _ in contexts}, {right for _, right in contexts}
    problems = []
    if len(lefts) > 1:
        problems.append(f"encoder.att_context_size has several left contexts {sorted(lefts)}, not one")
    if any(r + 2 in rights for r in rights):
        # The graph tells a first chunk from a later one by its length, see encoder.py.
        problems.append(f"encoder.att_context_size has lookaheads r and r + 2 among {sorted(rights)}")
    return problems


def _spec(config: dict) -> ModelSpec:
    encoder, decoder, mel = config["encoder"], config["decoder"], config["preprocessor"]
    contexts = _contexts(encoder)
    rate = int(mel["sample_rate"])
    greedy = (config.get("decoding") or {}).get("greedy") or {}
    return ModelSpec(
        kind=STREAMING_RNNT,
        frontend=FrontendSpec(
            sample_rate_hz=rate,
            n_mels=int(mel["features"]),
            n_fft=int(mel.get("n_fft") or 512),
            win_samples=int(mel["window_size"] * rate),
            hop_samples=int(mel["window_stride"] * rate),
            preemphasis=float(mel.get("preemph", 0.97)),
            log_guard=float(mel.get("log_zero_guard_value", LOG_GUARD)),
            normalize="NA",
        ),
        streaming=StreamingSpec(
            n_layers=int(encoder["n_layers"]),
            d_model=int(encoder["d_model"]),
            n_heads=int(encoder["n_heads"]),
            left_context_enc_frames=contexts[0][0],
            lookaheads=tuple(right for _, right in contexts),
            conv_cache_frames=int(encoder["conv_kernel_size"]) - 1,
            subsampling_factor=int(encoder["subsampling_factor"]),
            pre_encode_cache_mel_frames=int(encoder["subsampling_factor"]) + 1,  # ConvSubsampling's, when causal
        ),
        decoding=DecodingSpec(
            vocab_size=len(config["joint"]["vocabulary"]),
            pred_layers=int(decoder["prednet"]["pred_rnn_layers"]),
            pred_hidden=int(decoder["prednet"]["pred_hidden"]),
            joint_hidden=int(config["joint"]["jointnet"]["joint_hidden"]),
            max_symbols_per_frame=int(greedy.get("max_symbols") or greedy.get("max_symbols_per_step") or 10),
        ),
    )
