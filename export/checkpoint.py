"""Reads a checkpoint from its container: its kind, its specs from its own config, its weights. Refuses what is not exported."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemoport.buffered import BufferedSpec
from nemoport.errors import ArtifactError, CheckpointError
from nemoport.events import EventSpec, events_in
from nemoport.export.advice import advice
from nemoport.export.containers import Container, container_at
from nemoport.export.containers.container import Contents
from nemoport.export.hybrid import of_head, weights_of
from nemoport.export.hyperparameters import malformed, number, wrong_sections
from nemoport.export.kinds import (
    Kind,
    attention_window,
    contexts,
    durations,
    is_hybrid,
    kind_of,
    prompt_defaults,
    vocabulary,
    windows,
)
from nemoport.export.one_form import frame_samples, in_one_form
from nemoport.export.sentencepiece_model import read_model
from nemoport.export.source import resolve
from nemoport.export.unsupported import unsupported
from nemoport.prompt import PromptSpec
from nemoport.spec import CTC, DecodingSpec, FrontendSpec, ModelSpec, OfflineSpec, StreamingSpec
from nemoport.text import clipped
from nemoport.tokens import Pieces, SpellingRule

# What reading a config raises that is not of the form that NeMo writes.
OTHER_FORM = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be exported.

    path: of its file or folder; config: in the form of NeMo's model_config.yaml, whole; tokens: pieces by id, without blank;
    tokenizer: bytes of the SentencePiece model, empty where there is none; spelling: how it spells the pieces; base_model: the
    Hub id that it was downloaded by, or ""; hybrid: whether the file has another head too, which the config here does not show.
    """

    path: Path
    sha256: str
    spec: ModelSpec
    config: dict = field(repr=False)
    tokens: tuple[str, ...] = field(repr=False)
    tokenizer: bytes = field(repr=False)
    base_model: str = ""
    spelling: SpellingRule = field(default=SpellingRule(), repr=False)
    hybrid: bool = False

    @property
    def pieces(self) -> Pieces:
        """The tokens, with the rule that they are spelled by."""
        return Pieces(self.tokens, self.spelling)

    @property
    def name(self) -> str:
        """Name of its file, or of its folder or Hub repository."""
        if self.base_model and self.path.is_dir():  # a folder of the Hub's cache, which a commit names
            return self.base_model.partition("@")[0].partition("/")[2]
        return self.container.name

    @property
    def container(self) -> Container:
        """What it is stored in."""
        return container_at(self.path)

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights' files."""
        return self.container.weights_bytes

    def load_weights(self) -> dict:
        """Loads NeMo's name -> f32 tensor, on the CPU; of a hybrid those of its head. Raises CheckpointError."""
        weights = self.container.load_weights()
        return weights_of(weights, self.spec.head) if self.hybrid else weights


def read_checkpoint(checkpoint: str, head: str = "") -> Checkpoint:
    """Reads a checkpoint by its path or Hub id (source.py).

    head: of a hybrid, ctc or that of its transducer; "" for NeMo's choice, the transducer. Raises CheckpointError if the file is
    damaged, or naming every reason for which the model is not exported; UsageError for a head that the model does not have.
    """
    read = without_hash(checkpoint, head)
    return replace(read, sha256=read.container.sha256())


def checkpoint_kind(checkpoint: str, head: str = "") -> str:
    """Returns the name of a checkpoint's kind, without reading its weights. Raises as `read_checkpoint`."""
    return without_hash(checkpoint, head).spec.kind


def reasons_of(contents: Contents, config: dict) -> list[str]:
    """Every reason for which a model is not exported. config: of the contents, in one form or as it is written. Raises one of
    OTHER_FORM for what is no config of such a model."""
    known = config or not contents.problems  # of another model than transformers' of the same kinds there is no config
    return [*contents.problems, *(unsupported(config) if known else ())]


def without_hash(checkpoint: str, head: str = "") -> Checkpoint:
    """Reads a checkpoint as `read_checkpoint`, with an empty sha256, which takes as long as its file is read."""
    path, base_model = resolve(str(checkpoint))
    container = container_at(path)
    if not container.name.isprintable() or set(container.name) & set("<>|`"):
        raise CheckpointError(
            f"{clipped(path)} has a name that a model card cannot hold.",
            expected="printable characters, without < > | and `",
            found=clipped(ascii(container.name)),
            todo="rename it",
        )
    contents = container.read()
    config, tokenizer = contents.config, contents.tokenizer
    try:
        _refuse(container, wrong_sections(config))
        hybrid = is_hybrid(config)
        config = in_one_form(of_head(config, head))
        problems = reasons_of(contents, config)
        if not problems:
            _refuse(container, malformed(config))
        # What a build's config.json could not hold is refused here.
        spec = None if problems else ModelSpec.from_dict(_spec(config).to_dict())
    except OTHER_FORM as error:
        raise container.unreadable(f"{container.config_name}: {type(error).__name__}: {clipped(error)}") from error
    except ArtifactError as error:
        raise container.unreadable(f"{container.config_name}: {error.found}, not {error.expected}") from error
    if spec is None:
        raise CheckpointError(
            f"{path} is not a model that nemoport exports.",
            expected="a FastConformer transducer or CTC model (NeMo EncDecRNNTBPEModel, EncDecRNNTBPEModelWithPrompt, "
            "EncDecCTCModelBPE, or a hybrid of both): cache-aware RNNT or CTC, RNNT with a language prompt, or "
            "full-context RNNT, TDT or CTC, or buffered RNNT; "
            f"by its attention context this is {kind_of(config).name}",
            found="; ".join(problems),
            todo=advice(problems),
        )
    tokens = tuple(vocabulary(config))
    return Checkpoint(path, "", spec, config, tokens, tokenizer, base_model, _spelling(container, tokens, tokenizer), hybrid)


def _spelling(container: Container, tokens: tuple[str, ...], tokenizer: bytes) -> SpellingRule:
    """The rule of a SentencePiece model. Raises CheckpointError for one that is not the vocabulary's or cannot be followed."""
    events = tuple(spec.kinds) if (spec := events_in(tokens)) else ()
    if not tokenizer:
        return SpellingRule(events=events)
    try:
        model = read_model(tokenizer)
    except (ValueError, TypeError) as error:
        raise container.unreadable(f"tokenizer.model_path: {clipped(error)}, not a SentencePiece model") from error
    found = ""
    if tuple(piece for piece, _ in model.pieces) != tokens:
        found = f"{len(model.pieces)} other pieces than the {len(tokens)} of the vocabulary"
    elif model.denormalizes:
        found = "a denormalizer, which changes the text further"
    if found:
        raise CheckpointError(
            f"{container.path} has a tokenizer whose text would be another.",
            expected="a SentencePiece model of the pieces in the config's vocabulary, without a denormalizer",
            found=found,
            todo="save it again with NeMo, which writes the tokenizer's pieces; train without a denormalizer",
        )
    return replace(model.rule(), events=events)


def _refuse(container: Container, wrong: list[str]) -> None:
    """Raises CheckpointError naming what is wrong in the config, if anything is."""
    if wrong:
        todo = "save it again with NeMo; if NeMo restores it as it is, report this checkpoint"
        raise CheckpointError(
            f"{container.path} has settings that cannot be used.",
            expected=f"a {container.config_name} as NeMo writes it, with values in the bounds that are named",
            found=f"{container.config_name}: {'; '.join(wrong)}",
            todo=todo,
        )


def _spec(config: dict) -> ModelSpec:
    mel, kind = config["preprocessor"], kind_of(config)
    return ModelSpec(
        kind=kind.name,
        frontend=FrontendSpec(
            sample_rate_hz=number(config, "preprocessor.sample_rate"),
            n_mels=number(config, "preprocessor.features"),
            n_fft=number(config, "preprocessor.n_fft"),
            win_samples=frame_samples(mel, "window_size"),
            hop_samples=frame_samples(mel, "window_stride"),
            preemphasis=float(number(config, "preprocessor.preemph")),
            log_guard=float(number(config, "preprocessor.log_zero_guard_value")),
            normalize=mel.get("normalize", "per_feature"),
        ),
        streaming=_streaming(config) if kind.streaming else None,
        offline=None if kind.streaming else _offline(config, kind),
        buffered=BufferedSpec(*windows(config["encoder"])) if kind.buffered else None,
        decoding=DecodingSpec(len(vocabulary(config)), **({} if kind.head == CTC else _transducer(config))),
        prompt=_prompt(config) if kind.prompt else None,
        events=_events(config, kind.head),
    )


def _events(config: dict, head: str) -> EventSpec | None:
    """The events of the vocabulary. CTC has no decoder that could begin anew."""
    found = events_in(vocabulary(config))
    return replace(found, resets=False) if found and head == CTC else found


def _transducer(config: dict) -> dict[str, Any]:
    return {
        "pred_layers": number(config, "decoder.prednet.pred_rnn_layers"),
        "pred_hidden": number(config, "decoder.prednet.pred_hidden"),
        "joint_hidden": number(config, "joint.jointnet.joint_hidden"),
        "max_symbols_per_frame": number(config, "decoding.greedy.max_symbols"),
        "durations": durations(config),
    }


def _prompt(config: dict) -> PromptSpec:
    return PromptSpec(number(config, "model_defaults.num_prompts"), dict(prompt_defaults(config)["prompt_dictionary"]))


def _sizes(config: dict) -> dict[str, int]:
    sizes = {name: number(config, f"encoder.{name}") for name in ("n_layers", "d_model", "n_heads")}
    return {**sizes, "subsampling_factor": config["encoder"]["subsampling_factor"]}  # the kind requires its value


def _offline(config: dict, kind: Kind) -> OfflineSpec:
    return OfflineSpec(**_sizes(config), attention_enc_frames=None if kind.buffered else attention_window(config["encoder"]))


def _streaming(config: dict) -> StreamingSpec:
    pairs = contexts(config["encoder"])
    return StreamingSpec(
        **_sizes(config),
        left_context_enc_frames=pairs[0][0],
        lookaheads=tuple(right for _, right in pairs),
        conv_cache_frames=number(config, "encoder.conv_kernel_size") - 1,
        pre_encode_cache_mel_frames=config["encoder"]["subsampling_factor"] + 1,  # ConvSubsampling's, when causal
    )
