"""The layout of the package onnx-asr, and of browser apps that use its file names; offline models only.

encoder-model[.SUFFIX].onnx         encoder; fp32 with its weights in encoder-model.onnx.data
decoder_joint-model[.SUFFIX].onnx   prediction network and joint
model[.SUFFIX].onnx                 of a CTC model in place of both: encoder and CTC decoder
nemo128.onnx                        audio to log-mel
vocab.txt                           a token and its id a line, <blk> last
config.json                         the keys that onnx-asr reads, and all of nemoport's
sharded/                            fp32's encoder again, in files below a limit, if one was given
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemoport.artifact import ENCODER, Artifact
from nemoport.config import RuntimeConfig, read_config
from nemoport.errors import UsageError
from nemoport.export.merged import merged
from nemoport.external_data import check_external_data
from nemoport.files import write_json
from nemoport.graph_file import external_tensors, save_model
from nemoport.package.copying import copy_file
from nemoport.package.layout import (
    USUAL_FRONT_END,
    CardFacts,
    FrontEnds,
    Layout,
    duration_problems,
    front_end_problems,
    piece_problems,
)
from nemoport.package.shards import write_shards
from nemoport.spec import CTC, ModelSpec
from nemoport.tokens import read_tokens
from nemoport.variant import FP32

# Variant -> its name in onnx-asr's `quantization`; the other variants keep their own.
SUFFIXES = {FP32: "", "int8-smoothquant": "int8"}
# Variants that a package for any processor does not hold, and why.
GPU_ONLY = {"int8-smoothquant-signed": "is for TensorRT: onnxruntime on x86 makes u8 of its activations, which overflow"}
BLANK = "<blk>"
FRONTEND_NAMES = {"audio": "waveforms", "length": "waveforms_lens", "mel": "features", "mel_length": "features_lens"}
# Of onnx_asr/preprocessors, which computes the features itself and never opens a package's front end.
FRONT_ENDS: FrontEnds = {**USUAL_FRONT_END, "n_mels": (80, 128), "normalize": ("per_feature",)}
SINGLE_FILE_BYTES = 1_900_000_000  # protobuf ends at 2 GiB

FILES = {
    "config.json": "what onnx-asr reads, and every parameter and rule below, machine-readable",
    "encoder-model[.<quantization>].onnx": "encoder; fp32 with its weights in `encoder-model.onnx.data`",
    "decoder_joint-model[.<quantization>].onnx": "prediction network and joint, fused",
    "nemo<bands>.onnx": "front end: audio to normalised log-mel",
    "vocab.txt": "tokens by id, blank last",
    "manifest.json": "gate results; size and sha256 of every file",
}
WHOLE = "encoder and CTC decoder: log-mel to `logprobs` and their count"
CTC_FILES = {
    "config.json": FILES["config.json"],
    "model[.<quantization>].onnx": f"{WHOLE}; fp32 with its weights in `model.onnx.data`",
    **{path: FILES[path] for path in ("nemo<bands>.onnx", "vocab.txt", "manifest.json")},
}


def suffix_of(variant: str) -> str:
    """Returns what a variant adds to the names of its files, such as ".int8"; "" for fp32."""
    suffix = SUFFIXES.get(variant, variant)
    return f".{suffix}" if suffix else ""


def graphs(folder: Path, variant: str, head: str = "") -> tuple[Path, ...]:
    """Returns encoder and decoder of a variant in a package of this layout; of a CTC model the graph that holds both."""
    suffix = suffix_of(variant)
    if head == CTC:
        return (folder / f"model{suffix}.onnx",)
    return folder / f"encoder-model{suffix}.onnx", folder / f"decoder_joint-model{suffix}.onnx"


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    rows = {name: suffix_of(name).removeprefix(".") for name in facts.artifacts}
    name, suffix = next(((n, s) for n, s in rows.items() if s == "int8"), next(iter(rows.items())))
    chosen = f', quantization="{suffix}"' if suffix else ""
    listed = ", ".join(f'`"{s}"`: {n}' if s else f"none: {n}" for n, s in rows.items())
    return f"""With onnx-asr (`pip install onnx-asr onnxruntime soundfile`), in this folder; `quantization` is {listed}:

```python
import onnx_asr

model = onnx_asr.load_model("{_model_type(facts.spec)}", "."{chosen})  # {name}
print(model.recognize("recording.wav"))
```"""


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Writes graphs, front end, tokens and config.json. Raises UsageError for a model that onnx-asr cannot run."""
    import onnx

    config = read_config(build)
    spec = ModelSpec.from_dict(config["spec"])
    _check(spec, variants, piece_problems(read_tokens(build / "shared" / "tokens.txt"), BLANK, spaces_inside=True))
    for variant in variants:
        artifact = Artifact.open(build / variant)
        if spec.head == CTC:
            save_merged(artifact, graphs(folder, variant, CTC)[0], {}, beside=variant == FP32)
            continue
        for source, target in zip((artifact.encoder, artifact.decoder), graphs(folder, variant), strict=True):
            _copy_graph(source, target, beside=variant == FP32 and source.name == ENCODER)
    frontend = onnx.load(build / "shared" / "frontend.onnx")
    _rename(frontend.graph, FRONTEND_NAMES)
    onnx.save(frontend, folder / f"nemo{spec.frontend.n_mels}.onnx")
    write_tokens(build, folder / "vocab.txt")
    write_json(folder / "config.json", config_for(config))


def write_tokens(build: Path, path: Path) -> None:
    """Writes the vocabulary, a token and its id a line, blank last."""
    lines = [f"{piece} {i}\n" for i, piece in enumerate([*read_tokens(build / "shared" / "tokens.txt"), BLANK])]
    path.write_text("".join(lines), encoding="utf-8")


def shard(folder: Path, variants: Sequence[str], limit_bytes: int) -> None:
    """Writes fp32's encoder again, in files of at most `limit_bytes`. Raises UsageError where fp32 is not packed."""
    if FP32 not in variants:
        raise UsageError("There is nothing to shard.", expected=f"{FP32} among the variants", found=", ".join(variants))
    encoder = graphs(folder, FP32, ModelSpec.from_dict(read_config(folder)["spec"]).head)[0]
    (folder / "sharded").mkdir()
    write_shards(encoder, folder / "sharded", limit_bytes, encoder.name)


def config_for(config: RuntimeConfig) -> RuntimeConfig:
    """Returns config.json of a package of this layout: the build's, with the keys that onnx-asr reads."""
    spec = ModelSpec.from_dict(config["spec"])
    return {
        **config,
        "model_type": _model_type(spec),
        "features_size": spec.frontend.n_mels,
        "subsampling_factor": spec.encoder.subsampling_factor,
        "max_tokens_per_step": spec.decoding.max_symbols_per_frame,
    }


def _model_type(spec: ModelSpec) -> str:
    return f"nemo-conformer-{spec.head}"


def _spec_problems(spec: ModelSpec) -> list[str]:
    if spec.streaming is not None:
        found = ["a cache-aware streaming model, whose caches onnx-asr does not carry"]
    else:
        found = front_end_problems(spec, FRONT_ENDS)
    return found + duration_problems(spec)


def _check(spec: ModelSpec, variants: Sequence[str], problems: Sequence[str] = ()) -> None:
    problems = [*problems, *(f"{name}, which {GPU_ONLY[name]}" for name in variants if name in GPU_ONLY), *_spec_problems(spec)]
    if problems:
        raise UsageError(
            "onnx-asr cannot run this model.",
            expected="an offline model with NeMo's usual front end (16 kHz; 80 or 128 bands); durations 0, 1, 2, ... if it is a "
            "TDT; variants for any processor",
            found="; ".join(problems),
            todo="name other variants (--variants), or take the layout native",
        )


def save_merged(artifact: Artifact, target: Path, metadata: dict[str, str], beside: bool) -> None:
    """Writes encoder and CTC decoder of a variant as one graph. metadata: to add; beside: as of `_copy_graph`."""
    import onnx

    for source in (artifact.encoder, artifact.decoder):
        check_external_data(source)
    whole = merged(onnx.load(artifact.encoder), onnx.load(artifact.decoder))
    metadata = {entry.key: entry.value for entry in whole.metadata_props} | metadata
    if beside or sum(i.ByteSize() for i in whole.graph.initializer) > SINGLE_FILE_BYTES:
        save_model(whole, target, metadata)
    else:
        onnx.helper.set_model_props(whole, metadata)
        onnx.save(whole, target)


def _copy_graph(source: Path, target: Path, beside: bool) -> None:
    """Writes a graph under another name. beside: with its weights in a file of their own, else in the graph, if they fit."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    model = onnx.load(source, load_external_data=False)
    tensors = external_tensors(model)
    size = sum(t.bytes for t in tensors)
    if tensors and (beside or size > SINGLE_FILE_BYTES):
        copy_file(source.with_name(f"{source.name}.data"), target.with_name(f"{target.name}.data"))
        for tensor in tensors:
            entry = next(e for e in tensor.proto.external_data if e.key == "location")
            entry.value = f"{target.name}.data"
    else:
        load_external_data_for_model(model, str(source.parent))
    onnx.save(model, target)


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Renames the inputs and outputs of an onnx.GraphProto. names: old -> new."""
    for value in (*graph.input, *graph.output):
        value.name = names[value.name]
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


LAYOUT = Layout(
    "onnx-asr",
    FILES,
    lay_out,
    graphs,
    usage,
    config_for=config_for,
    ctc_files=CTC_FILES,
    shard=shard,
    front_ends=lambda spec: FRONT_ENDS,
    problems=lambda spec, pieces: [*piece_problems(pieces, BLANK, spaces_inside=True), *_spec_problems(spec)],
)
