"""The layout of transformers.js (npm @huggingface/transformers); offline CTC models only, as these are all that it runs.

onnx/model[_DTYPE].onnx     encoder and CTC decoder; fp32 with its weights in model.onnx_data, model.onnx_data_1, ...
config.json                 the keys that transformers.js reads, and all of nemoport's
preprocessor_config.json    of its feature extractor
tokenizer.json, tokenizer_config.json

transformers.js takes the best token of every frame that a graph returns, padding too, and leaves it to the tokenizer to join
runs. So the graph says blank behind the end of a recording, and the tokenizer's decoder is CTC, then the spelling of words; the
one that transformers writes lacks the first and repeats tokens. Nothing is a special token: these are taken out before runs are
joined, and a blank between two equal tokens must stay.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from nemoport.artifact import Artifact
from nemoport.config import RuntimeConfig, read_config
from nemoport.export.merged import merged
from nemoport.external_data import check_external_data
from nemoport.files import write_json
from nemoport.graph_file import save_model
from nemoport.package.adapted import AdaptedGraph, AdaptedMergedSession
from nemoport.package.layout import CardFacts, FrontEnds, Layout, front_end_problems, piece_problems
from nemoport.package.layouts import onnx_asr
from nemoport.package.layouts.onnx_asr import SINGLE_FILE_BYTES
from nemoport.package.refusal import NO_PIECES, USUAL, refuse
from nemoport.package.shards import write_shards
from nemoport.package.transformers_js_files import BLANK, INPUTS, OUTPUTS, as_ctc_model, tokenizer, with_mask
from nemoport.session import Session
from nemoport.spec import CTC, ModelSpec
from nemoport.tokens import Pieces, read_tokens
from nemoport.variant import FP32

# Variant -> its name in transformers.js, `dtype`, and what that adds to the name of the file. There are no other names.
DTYPES = {
    FP32: ("fp32", ""),
    "fp16": ("fp16", "_fp16"),
    "int8-smoothquant": ("int8", "_int8"),
    "int8-weight": ("uint8", "_uint8"),
    "int8-dynamic": ("q8", "_quantized"),
    "int4-weight": ("q4", "_q4"),
}
# What is loaded where no dtype is named: the first of these that is packed.
PREFERRED = ("int8-weight", "int8-dynamic", "int8-smoothquant", "fp16", FP32, "int4-weight")
SECTION = "transformers.js_config"  # of config.json
FRONT_ENDS: FrontEnds = onnx_asr.FRONT_ENDS  # of ParakeetFeatureExtractor

FILES = {
    "config.json": "what transformers.js reads, and every parameter and rule below, machine-readable",
    "onnx/model[_<dtype>].onnx": "encoder and CTC decoder: log-mel to `logits`; fp32 with its weights in `model.onnx_data`",
    "preprocessor_config.json": "of the feature extractor",
    "tokenizer.json`, `tokenizer_config.json": "tokens by id, blank last, and how they become text",
    "manifest.json": "gate results; size and sha256 of every file",
}


def graphs(folder: Path, variant: str, head: str = "") -> tuple[Path, ...]:
    """Returns the graph of a variant in a package of this layout."""
    return (folder / "onnx" / f"model{DTYPES[variant][1]}.onnx",)


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    names = {DTYPES[variant][0]: variant for variant in facts.artifacts}
    listed = ", ".join(f'`"{dtype}"`: {variant}' for dtype, variant in names.items())
    default = DTYPES[_preferred(facts.artifacts)][0]
    return f"""With transformers.js (`npm install @huggingface/transformers`). PACKAGE is this repository, or a folder in the
current one; `dtype` is {listed}; `"{default}"` where none is named:

```javascript
import {{ env, pipeline }} from "@huggingface/transformers";

env.localModelPath = "./";  // of a folder on this machine
const transcribe = await pipeline("automatic-speech-recognition", "PACKAGE", {{ dtype: "{default}" }});
const samples = new Float32Array({facts.spec.frontend.sample_rate_hz});  // mono, {facts.spec.frontend.sample_rate_hz} Hz
console.log((await transcribe(samples)).text);
```

- The figures above are of these graphs behind NeMo's own front end. That of transformers.js computes the same in float64.
- A recording is one window: cut long ones at pauses."""


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Writes graphs, tokens and configs. Raises UsageError for a model or a variant that transformers.js cannot run."""
    import onnx

    config = read_config(build)
    spec = ModelSpec.from_dict(config["spec"])
    pieces = read_tokens(build / "shared" / "tokens.txt")
    _check(spec, variants, pieces)
    (folder / "onnx").mkdir()
    for variant in variants:
        artifact = Artifact.open(build / variant)
        for source in (artifact.encoder, artifact.decoder):
            check_external_data(source)
        model = merged(onnx.load(artifact.encoder), onnx.load(artifact.decoder))
        as_ctc_model(model, spec)
        _save(model, graphs(folder, variant)[0], SINGLE_FILE_BYTES)
    write_json(folder / "config.json", {**config_for(config), SECTION: _section(variants, folder)})
    write_json(folder / "preprocessor_config.json", _preprocessor(spec))
    write_json(folder / "tokenizer.json", tokenizer(pieces))
    names = {"pad_token": BLANK, "unk_token": pieces.rule.unknown, "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})


def shard(folder: Path, variants: Sequence[str], limit_bytes: int) -> None:
    """Writes the graphs whose weights are larger than a limit again, with the weights in files below it."""
    import onnx

    for variant in variants:
        (path,) = graphs(folder, variant)
        _save(onnx.load(path), path, limit_bytes)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, SECTION: _section(variants, folder)})


def config_for(config: RuntimeConfig) -> RuntimeConfig:
    """Returns the build's config.json with the keys that transformers.js and its feature extractor are found by."""
    decoding = ModelSpec.from_dict(config["spec"]).decoding
    names = {"model_type": "parakeet_ctc", "architectures": ["ParakeetForCTC"]}
    sizes = {"vocab_size": decoding.n_scores, "pad_token_id": decoding.blank_id}
    return cast("RuntimeConfig", {**config, **names, **sizes})


def open_variant(folder: Path, variant: str, spec: ModelSpec) -> Session:
    """Opens a variant of such a package in nemoport's own runtime."""
    return AdaptedMergedSession(spec, AdaptedGraph(graphs(folder, variant)[0], INPUTS, OUTPUTS, with_mask))


def problems(spec: ModelSpec, pieces: Pieces) -> list[str]:
    """Returns each thing of a model that transformers.js cannot run, whatever the variant."""
    found = piece_problems(pieces, BLANK, spaces_inside=True) + front_end_problems(spec, FRONT_ENDS)
    if spec.head != CTC:
        found.append(f"a model with the head {spec.head}, where it decodes CTC")
    if spec.streaming is not None:
        found.append("a cache-aware streaming model, whose caches it does not carry")
    return found


def _check(spec: ModelSpec, variants: Sequence[str], pieces: Pieces = NO_PIECES) -> None:
    found = problems(spec, pieces) + [f"{name}, for which it has no dtype" for name in variants if name not in DTYPES]
    refuse("transformers.js", f"an offline CTC model, {USUAL}: {', '.join(DTYPES)}", found)


def _preferred(variants: Iterable[str]) -> str:
    return next(name for name in PREFERRED if name in set(variants))


def _section(variants: Sequence[str], folder: Path) -> dict[str, Any]:
    """What config.json tells transformers.js: the dtype to load, and the files of weights beside a graph."""
    paths = [path for variant in variants for path in graphs(folder, variant)]
    beside = {path.name: len([*path.parent.glob(f"{path.name}_data*")]) for path in paths}
    section: dict[str, Any] = {"dtype": DTYPES[_preferred(variants)][0]}
    return section | ({"use_external_data_format": beside} if any(beside.values()) else {})


def _preprocessor(spec: ModelSpec) -> dict[str, Any]:
    """The content of preprocessor_config.json."""
    frontend = spec.frontend
    return {
        "feature_extractor_type": "ParakeetFeatureExtractor",
        "feature_size": frontend.n_mels,
        "sampling_rate": frontend.sample_rate_hz,
        "n_fft": frontend.n_fft,
        "win_length": frontend.win_samples,
        "hop_length": frontend.hop_samples,
        "preemphasis": frontend.preemphasis,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
    }


def _save(model: Any, path: Path, limit_bytes: int) -> None:
    """Writes an onnx.ModelProto in one file, or with its weights in files beside it, if they are larger than the limit."""
    import onnx

    for old in path.parent.glob(f"{path.name}_data*"):
        old.unlink()
    if sum(tensor.ByteSize() for tensor in model.graph.initializer) <= limit_bytes:
        onnx.save(model, path)
        return
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        whole = Path(scratch) / path.name
        save_model(model, whole, {entry.key: entry.value for entry in model.metadata_props})
        write_shards(whole, path.parent, limit_bytes, path.name, lambda i: f"{path.name}_data{f'_{i}' if i else ''}")


LAYOUT = Layout(
    "transformers-js",
    FILES,
    lay_out,
    graphs,
    usage,
    config_for=config_for,
    variants=tuple(DTYPES),
    ctc_files=FILES,
    shard=shard,
    front_ends=lambda spec: FRONT_ENDS,
    problems=problems,
    open_variant=open_variant,
    tags=("transformers.js",),
    library="transformers.js",
)
