"""Contract: what a runtime relies on without looking: names, types, shapes, metadata, file names, hashes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from nemoport.artifact import ONNXRUNTIME
from nemoport.contract import KV, PROMPT, KvCaches, NemoCaches, contract_of
from nemoport.export.config import cache_shapes
from nemoport.export.shared import LANGUAGES
from nemoport.export.targets import load_target
from nemoport.spec import ModelSpec
from nemoport.tokens import read_tokens
from nemoport.validate.context import Context
from nemoport.validate.result import GateResult

F32, I32, I64 = "FLOAT", "INT32", "INT64"
Tensor = tuple[str, tuple[int | None, ...]]  # element type, dimensions; None is a dynamic one
OPTIONAL = {"target_length", "prednet_lengths"}  # NeMo's interface has them, nothing is computed from them


def run(context: Context) -> list[GateResult]:
    problems, checks = [], 0
    for found in (
        _files(context),
        _specs(context),
        _languages(context),
        _interfaces(context),
    ):
        for problem in found:
            checks += 1
            problems += [problem] if problem else []
    return [
        context.judge(
            "contract", "", len(problems), limit="max_problems", unit="problems", n=checks, evidence="; ".join(problems)
        )
    ]


def _interfaces(context: Context) -> Iterator[str]:
    artifact, spec = context.artifact, context.spec
    if context.limits.target != ONNXRUNTIME:
        yield from load_target(context.limits.target).problems(artifact, spec)
        return
    yield from _graph(artifact.encoder, *encoder_interface(spec, contract_of(context.variant)), context)
    yield from _graph(artifact.decoder, *decoder_interface(spec), context)


def encoder_interface(spec: ModelSpec, contract: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and outputs of an encoder graph by one contract."""
    inputs = {"audio_signal": (F32, (None, spec.frontend.n_mels, None)), "length": (I64, (None,))}
    outputs = {"outputs": (F32, (None, spec.encoder.d_model, None)), "encoded_lengths": (I64, (None,))}
    prompt = {PROMPT: (I64, (None,))} if spec.prompt else {}
    if spec.streaming is None:
        return inputs, outputs
    if contract == KV:
        shapes = KvCaches.shapes(spec.streaming, 1)
        *caches, length = shapes
        inputs |= {name: (F32, (shapes[name][0], None, *shapes[name][2:])) for name in caches}
        added = zip(KvCaches.outputs(spec.streaming), caches, strict=True)
        outputs |= {name: (F32, (None, None, *shapes[cache][2:])) for name, cache in added}
        return inputs | {length: (I64, (None,))} | prompt, outputs
    shapes = {name: (None, *shape[1:]) for name, shape in NemoCaches.shapes(spec.streaming, 1).items()}
    kinds = (F32, F32, I64)
    inputs |= {name: (kind, shape) for (name, shape), kind in zip(shapes.items(), kinds, strict=True)}
    outputs |= {
        name: (kind, shape) for name, kind, shape in zip(NemoCaches.outputs(spec.streaming), kinds, shapes.values(), strict=True)
    }
    return inputs | prompt, outputs


def decoder_interface(spec: ModelSpec) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    state = (F32, (spec.decoding.pred_layers, None, spec.decoding.pred_hidden))
    inputs = {
        "encoder_outputs": (F32, (None, spec.encoder.d_model, None)),
        "targets": (I32, (None, None)),
        "target_length": (I32, (None,)),
        "input_states_1": state,
        "input_states_2": state,
    }
    outputs = {
        "outputs": (F32, (None, None, None, spec.decoding.n_scores)),
        "prednet_lengths": (I32, (None,)),
        "output_states_1": state,
        "output_states_2": state,
    }
    return inputs, outputs


def _files(context: Context) -> Iterator[str]:
    artifact = context.artifact
    artifact.verify_files()  # raises, naming every file that differs from the manifest
    for _ in artifact.manifest.files:
        yield ""
    yield _differs("manifest.json's variant", context.variant, artifact.manifest.variant)
    yield _differs("manifest.json's checkpoint", context.checkpoint.sha256, artifact.manifest.checkpoint_sha256)
    yield _differs("tokens in tokens.txt", context.spec.decoding.vocab_size, len(read_tokens(artifact.shared / "tokens.txt")))
    artifact.filterbank()


def _languages(context: Context) -> Iterator[str]:
    """What a consumer of languages.json tells the model is what the checkpoint was taught."""
    if (prompt := context.spec.prompt) is None:
        return
    path = context.artifact.shared / LANGUAGES
    yield _differs(f"shared/{LANGUAGES}", prompt.languages, json.loads(path.read_text()) if path.is_file() else "no file")
    told = context.artifact.config().get("prompt", {}).get("languages")
    yield _differs("config.json's prompt.languages", prompt.languages, told)


def _specs(context: Context) -> Iterator[str]:
    ours, theirs = context.spec.to_dict(), context.artifact.spec.to_dict()
    yield _differs("config.json's kind", ours["kind"], theirs["kind"])
    for part in [name for name in ours if name != "kind"]:
        for name, value in ours[part].items():
            yield _differs(f"config.json's {part}.{name}", value, theirs.get(part, {}).get(name))
    if context.spec.streaming is None:
        return
    encoder, streaming = context.artifact.config()["encoder"], context.spec.streaming
    for key, caches in (("cache_shapes", NemoCaches), ("kv_cache_shapes", KvCaches)):
        yield _differs(f"config.json's {key}", cache_shapes(streaming, caches), encoder.get(key))


def _graph(path: Path, inputs: dict[str, Tensor], outputs: dict[str, Tensor], context: Context) -> Iterator[str]:
    import onnx

    model = onnx.load(path, load_external_data=False)
    name = path.name
    for wanted, values, side in ((inputs, model.graph.input, "input"), (outputs, model.graph.output, "output")):
        found = {value.name: value.type.tensor_type for value in values}
        for unknown in sorted(set(found) - set(wanted)):
            yield f"{name}: unknown {side} {unknown}"
        for key, tensor in wanted.items():
            if key in found or key not in OPTIONAL:
                yield _tensor_problem(f"{name}: {side} {key}", tensor, found.get(key))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    spec = json.loads(metadata.get("nemoport.spec", "null"))
    yield _differs(f"{name}: nemoport.spec", json.loads(json.dumps(context.spec.to_dict())), spec)
    sha256 = metadata.get("nemoport.checkpoint_sha256")
    yield _differs(f"{name}: nemoport.checkpoint_sha256", context.checkpoint.sha256, sha256)
    places = {e.value for i in model.graph.initializer for e in i.external_data if e.key == "location"}
    yield _differs(f"{name}: external data in", {f"{name}.data"}, places)
    listed = {entry.path for entry in context.artifact.manifest.files.values()}
    yield _differs(f"{name}: listed in manifest.json", True, {name, f"{name}.data"} <= listed)


def _tensor_problem(what: str, wanted: Tensor, found) -> str:
    import onnx

    if found is None:
        return f"{what} is absent"
    dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in found.shape.dim)
    return _differs(what, wanted, (onnx.TensorProto.DataType.Name(found.elem_type), dims))


def _differs(what: str, expected, found) -> str:
    return "" if expected == found else f"{what}: expected {expected}, found {found}"
