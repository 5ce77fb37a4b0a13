"""What the layouts of other consumers write, name by name and number by number: little of it needs a build, none of it NeMo."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import samples
from onnx import TensorProto, helper, numpy_helper

from nemoport.errors import ArtifactError, UsageError
from nemoport.package.examples import example_text
from nemoport.package.layouts import load_layout, native, onnx_asr, sherpa_onnx
from nemoport.package.sherpa_onnx_silence import VERSION
from nemoport.package.usage import nemoport_commands, prompt_arguments
from nemoport.prompt import PromptSpec
from nemoport.spec import ModelSpec

STREAMING, OFFLINE = ModelSpec.from_dict(samples.SPEC), ModelSpec.from_dict(samples.OFFLINE_SPEC)
OFFLINE = replace(OFFLINE, frontend=replace(OFFLINE.frontend, normalize="per_feature", n_mels=80))
OFFLINE_CONFIG = samples.CONFIG | {"spec": OFFLINE.to_dict(), "encoder": {"input_rule": ""}}
PROMPT = replace(STREAMING, prompt=PromptSpec(4, {"de": 1, "auto": 3}))
NAMES = {"fp32": "", "fp16": ".fp16", "int8-smoothquant": ".int8", "int8-dynamic": ".int8-dynamic"}


def facts(spec, config, *variants):
    return SimpleNamespace(spec=spec, config=config, artifacts=dict.fromkeys(variants))


@pytest.mark.parametrize("variant", NAMES)
def test_files_have_the_names_that_the_consumer_looks_for(variant, tmp_path):
    suffix = NAMES[variant]
    assert [path.name for path in onnx_asr.graphs(tmp_path, variant)] == [
        f"{part}{suffix}.onnx" for part in ("encoder-model", "decoder_joint-model")
    ]
    assert [path.name for path in sherpa_onnx.graphs(tmp_path, variant)] == [
        f"{part}{suffix}.onnx" for part in ("encoder", "decoder", "joiner")
    ]
    own = tmp_path / variant
    assert native.graphs(tmp_path, variant) == (own / "encoder_model.onnx", own / "decoder_model.onnx")
    assert native.artifact_folder(tmp_path, variant) == own
    assert {path.parent for layout in (onnx_asr, sherpa_onnx) for path in layout.graphs(tmp_path, variant)} == {tmp_path}


FILES = {
    "native": (
        "config.json", "<variant>/encoder_model.onnx`, `.onnx.data", "<variant>/decoder_model.onnx`, `.onnx.data",
        "<variant>/manifest.json", "shared/filterbank.bin`, `.meta", "shared/tokens.txt`, `tokenizer.model",
        "shared/spelling.json", "shared/languages.json`, `vocab.json`, `metadata.json", "shared/preprocessor.config",
        "shared/frontend.onnx", "manifest.json",
    ),
    "onnx-asr": (
        "config.json", "encoder-model[.<quantization>].onnx", "decoder_joint-model[.<quantization>].onnx", "nemo<bands>.onnx",
        "vocab.txt", "manifest.json",
    ),
    "sherpa-onnx": (
        "config.json", "encoder[.<suffix>].onnx", "decoder[.<suffix>].onnx`, `joiner[.<suffix>].onnx", "tokens.txt",
        "manifest.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_card_lists_the_files_of_a_layout(name):
    assert tuple(load_layout(name).files) == FILES[name] and load_layout(name).name == name


def test_a_layout_is_of_its_own_functions():
    for layout in (native, onnx_asr, sherpa_onnx):
        made = layout.LAYOUT
        assert (made.files, made.lay_out, made.graphs, made.usage) == (layout.FILES, layout.lay_out, layout.graphs, layout.usage)
        assert made.runtime == "onnxruntime" and "manifest.json" in made.files
    assert native.LAYOUT.artifact_folder is native.artifact_folder and onnx_asr.LAYOUT.artifact_folder is None
    assert onnx_asr.LAYOUT.config_for is onnx_asr.config_for and sherpa_onnx.LAYOUT.config_for is sherpa_onnx.config_for
    assert onnx_asr.LAYOUT.shard is onnx_asr.shard and sherpa_onnx.LAYOUT.shard is None
    assert onnx_asr.LAYOUT.front_ends(OFFLINE) == onnx_asr.FRONT_ENDS
    assert sherpa_onnx.LAYOUT.front_ends is sherpa_onnx.front_ends
    assert sherpa_onnx.LAYOUT.cache_layouts == ("nemo",) and onnx_asr.LAYOUT.cache_layouts == ("nemo", "kv")
    assert [sherpa_onnx.front_ends(spec)["normalize"] for spec in (STREAMING, OFFLINE)] == [("NA",), ("per_feature",)]


@pytest.mark.parametrize("layout", [onnx_asr, sherpa_onnx])
def test_a_piece_with_the_name_of_the_blank_is_refused(layout, build, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "config.json").write_bytes((build / "config.json").read_bytes())
    lines = (build / "shared" / "tokens.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "shared" / "tokens.txt").write_text("".join(["<blk> 0\n", *lines[1:]]), encoding="utf-8")
    with pytest.raises(UsageError, match="pieces named <blk>, as the blank"):
        layout.lay_out(tmp_path, ["fp32"], tmp_path / "package")


# sherpa-onnx

COMMON = {
    "model_type": "EncDecRNNTBPEModel", "vocab_size": "96", "subsampling_factor": "8", "pred_rnn_layers": "2",
    "pred_hidden": "160",
}  # fmt: skip
LIVE = {
    "url": "streaming-rnnt", "normalize_type": "", "feat_dim": "128", "window_size": "65", "chunk_shift": "56",
    "cache_last_channel_dim1": "6", "cache_last_channel_dim2": "70", "cache_last_channel_dim3": "176",
    "cache_last_time_dim1": "6", "cache_last_time_dim2": "176", "cache_last_time_dim3": "8",
}  # fmt: skip


def test_sherpa_onnx_is_told_the_sizes_of_the_graphs():
    assert sherpa_onnx.encoder_metadata(STREAMING, samples.CONFIG) == COMMON | LIVE
    told = {"prompt_dictionary": '{"de": 1, "auto": 3}', "auto_prompt_id": "3"}
    assert sherpa_onnx.encoder_metadata(PROMPT, samples.CONFIG) == COMMON | LIVE | told
    whole = {"url": "offline-rnnt", "normalize_type": "per_feature", "feat_dim": "80"}
    assert sherpa_onnx.encoder_metadata(OFFLINE, OFFLINE_CONFIG) == COMMON | whole


def test_sherpa_onnx_is_given_silence_before_and_after():
    """2 frames of 8 mel frames are dropped, and frames are half a hop later; behind the audio two chunks of 56 and a frame."""
    found = sherpa_onnx.config_for(samples.CONFIG)
    assert {key: found[key] for key in samples.CONFIG} == samples.CONFIG
    numbers = {key: value for key, value in found["sherpa_onnx"].items() if not key.endswith("_rule")}
    assert numbers == {
        "version": VERSION,
        "lookahead": 6,
        "chunk_ms": 560.0,
        "lead_samples": 2640,
        "tail_samples": 18080,
    }
    assert "first 16 mel frames" in found["sherpa_onnx"]["lead_rule"]
    offline = sherpa_onnx.config_for(OFFLINE_CONFIG)["sherpa_onnx"]
    assert offline.keys() == {"version", "lead_samples", "lead_rule", "front_end_rule"} and offline["lead_samples"] == 80


def test_how_to_run_it_in_sherpa_onnx():
    text = sherpa_onnx.usage(facts(STREAMING, samples.CONFIG, "fp32", "int8-smoothquant", "fp16"))
    assert 'as `python example.py . ".int8" recording.wav`:' in text
    assert "- Suffixes: none: fp32, `.int8`: int8-smoothquant, `.fp16`: fp16.\n" in text
    assert "- Chunks of 560 ms (lookahead 6)" in text and "\n- `lead`: sherpa-onnx drops" in text and "\n- `tail`: " in text
    assert example_text("sherpa_onnx_streaming") in text
    text = sherpa_onnx.usage(facts(PROMPT, samples.CONFIG, "fp16", "fp32"))
    assert 'python example.py . ".fp16" recording.wav auto`' in text
    text = sherpa_onnx.usage(facts(OFFLINE, OFFLINE_CONFIG, "fp32"))
    assert 'python example.py . "" recording.wav`' in text and example_text("sherpa_onnx_offline") in text
    assert "Chunks of" not in text and "`front_end`: " in text


def refused(layout, spec, *variants):
    with pytest.raises(UsageError) as error:
        layout._check(spec, variants)
    return error.value.found.split("; ")


def tdt(*durations):
    return replace(OFFLINE, kind="offline-tdt", decoding=replace(OFFLINE.decoding, durations=durations))


def test_what_sherpa_onnx_cannot_run_is_named_all_at_once():
    others = ("kv-fp32", "fp32", "kv-int8-static", "int8-smoothquant-signed")
    (gpu, caches) = refused(sherpa_onnx, STREAMING, *others)
    assert gpu.startswith("int8-smoothquant-signed, which is for TensorRT")
    assert caches == "kv-fp32, kv-int8-static, whose caches it does not keep"
    assert refused(sherpa_onnx, tdt(0, 2), "fp32") == ["durations [0, 2], which it takes to be 0, 1, 2, ..."]
    for spec in (STREAMING, OFFLINE, PROMPT, tdt(0, 1, 2), tdt(0)):
        sherpa_onnx._check(spec, ["fp32"])
    without = replace(STREAMING, prompt=PromptSpec(2, {"en": 0}))
    assert refused(sherpa_onnx, without, "fp32")[0].startswith("a prompt without auto")


def model_of(weight, *inputs):
    """y = x W; inputs: names of inputs and outputs beside them."""
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])  # noqa: E731
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
        *(helper.make_node("Relu", [i], [f"{i}2"]) for i in inputs),
    ]
    graph = helper.make_graph(
        nodes, "g", [value(i) for i in ("x", *inputs)], [value(o) for o in ("y", *(f"{i}2" for i in inputs))],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


WEIGHT = np.arange(1600, dtype=np.float32).reshape(4, 400)


@pytest.mark.parametrize("beside", [False, True])
def test_a_graph_is_in_one_file_if_it_fits_and_keeps_its_metadata(tmp_path, monkeypatch, beside):
    model = model_of(WEIGHT)
    helper.set_model_props(model, {"kept": "1", "changed": "2"})
    monkeypatch.setattr(sherpa_onnx, "SINGLE_FILE_BYTES", model.ByteSize() - beside)
    sherpa_onnx._save(model, tmp_path / "a.onnx", {"changed": "3"})
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", *(["a.onnx.data"] if beside else [])}
    found = onnx.load(tmp_path / "a.onnx")
    assert {p.key: p.value for p in found.metadata_props} == {"kept": "1", "changed": "3"}
    assert np.array_equal(numpy_helper.to_array(found.graph.initializer[0]), WEIGHT)


def test_a_build_becomes_a_package_of_sherpa_onnx(build, tmp_path):
    sherpa_onnx.lay_out(build, ["fp32"], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "encoder.onnx", "decoder.onnx", "joiner.onnx", "tokens.txt", "config.json",
    }  # fmt: skip
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == sherpa_onnx.config_for(json.loads((build / "config.json").read_text()))
    spec = ModelSpec.from_dict(config["spec"])
    graphs = {path.stem: onnx.load(path) for path in tmp_path.glob("*.onnx")}
    props = {name: {p.key: p.value for p in graph.metadata_props} for name, graph in graphs.items()}
    assert props["encoder"].items() >= sherpa_onnx.encoder_metadata(spec, config).items()
    assert "nemoport.spec" in props["encoder"] and not {"vocab_size", "url"} & (props["decoder"].keys() | props["joiner"].keys())
    assert [[i.name for i in graphs[name].graph.input] for name in ("decoder", "joiner")] == [
        ["targets", "target_length", "input_states_1", "input_states_2"], ["encoder_outputs", "decoder_outputs"],
    ]  # fmt: skip
    with pytest.raises(UsageError, match="kv-fp32"):
        sherpa_onnx.lay_out(build, ["kv-fp32"], tmp_path)


# onnx-asr


def test_what_onnx_asr_cannot_run_is_named_all_at_once():
    for spec in (OFFLINE, tdt(0, 1, 2), tdt(0)):
        onnx_asr._check(spec, ["fp32", "int8-smoothquant"])
    assert refused(onnx_asr, tdt(0, 2, 1), "fp32") == ["durations [0, 2, 1], which it takes to be 0, 1, 2, ..."]
    signed, live = refused(onnx_asr, STREAMING, "int8-smoothquant-signed")
    assert signed.startswith("int8-smoothquant-signed, which is for TensorRT") and live.startswith(
        "a cache-aware streaming model"
    )
    assert refused(onnx_asr, replace(OFFLINE, frontend=replace(OFFLINE.frontend, n_mels=64)), "fp32") == [
        "a front end with n_mels 64, where it has 80 or 128"
    ]


def test_how_to_run_it_in_onnx_asr():
    text = onnx_asr.usage(facts(OFFLINE, OFFLINE_CONFIG, "fp32", "int8-smoothquant"))
    assert '`quantization` is none: fp32, `"int8"`: int8-smoothquant:' in text
    assert 'load_model("nemo-conformer-rnnt", ".", quantization="int8")  # int8-smoothquant\n' in text
    text = onnx_asr.usage(facts(tdt(0, 1), OFFLINE_CONFIG, "fp32", "fp16"))
    assert 'load_model("nemo-conformer-tdt", ".")  # fp32\n' in text and '`quantization` is none: fp32, `"fp16"`: fp16:' in text
    text = onnx_asr.usage(facts(OFFLINE, OFFLINE_CONFIG, "fp16", "fp32"))
    assert 'load_model("nemo-conformer-rnnt", ".", quantization="fp16")  # fp16\n' in text


def test_onnx_asr_finds_its_keys_in_config_json():
    assert onnx_asr.config_for(OFFLINE_CONFIG) == OFFLINE_CONFIG | {
        "model_type": "nemo-conformer-rnnt", "features_size": 80, "subsampling_factor": 8, "max_tokens_per_step": 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("beside", "room", "external", "separate"),
    [(True, 6400, True, True), (False, 6400, True, False), (False, 6399, True, True), (True, 0, False, False)],
)
def test_weights_are_beside_a_graph_or_in_it(tmp_path, monkeypatch, beside, room, external, separate):
    """Beside it where that is asked for or a file cannot hold them; a graph without any stays one file."""
    monkeypatch.setattr(onnx_asr, "SINGLE_FILE_BYTES", room)
    (tmp_path / "from").mkdir()
    source, target = tmp_path / "from" / "encoder_model.onnx", tmp_path / "encoder-model.onnx"
    if external:
        onnx.save(model_of(WEIGHT), source, save_as_external_data=True, location=f"{source.name}.data", size_threshold=0)
    else:
        onnx.save(model_of(WEIGHT), source)
    onnx_asr._copy_graph(source, target, beside=beside)
    assert (tmp_path / "encoder-model.onnx.data").is_file() == separate
    made = onnx.load(target, load_external_data=False)
    assert bool(made.graph.initializer[0].external_data) == separate
    assert np.array_equal(numpy_helper.to_array(onnx.load(target).graph.initializer[0]), WEIGHT)


def test_inputs_and_outputs_are_renamed_wherever_they_stand():
    model = model_of(WEIGHT, "length")
    onnx_asr._rename(model.graph, {"x": "waveforms", "length": "lens", "y": "features", "length2": "features_lens"})
    assert [[v.name for v in side] for side in (model.graph.input, model.graph.output)] == [
        ["waveforms", "lens"], ["features", "features_lens"],
    ]  # fmt: skip
    assert [([*n.input], [*n.output]) for n in model.graph.node] == [
        (["waveforms", "w"], ["features"]), (["lens"], ["features_lens"]),
    ]  # fmt: skip


def test_a_build_becomes_a_package_of_onnx_asr(build, tmp_path, monkeypatch):
    """The committed build is of a streaming model, which the check would refuse."""
    with pytest.raises(UsageError, match="cache-aware"):
        onnx_asr.lay_out(build, ["fp32"], tmp_path)
    asked = []
    monkeypatch.setattr(onnx_asr, "_check", lambda *given: asked.append(given))
    onnx_asr.lay_out(build, ["fp32"], tmp_path)
    config = json.loads((build / "config.json").read_text())
    assert asked == [(ModelSpec.from_dict(config["spec"]), ["fp32"], [])]
    assert {path.name for path in tmp_path.iterdir()} == {
        "encoder-model.onnx", "encoder-model.onnx.data", "decoder_joint-model.onnx", "nemo128.onnx", "vocab.txt", "config.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "config.json").read_text()) == onnx_asr.config_for(config)
    tokens = (build / "shared" / "tokens.txt").read_text(encoding="utf-8")
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8") == f"{tokens}<blk> {len(tokens.splitlines())}\n"
    frontend = onnx.load(tmp_path / "nemo128.onnx").graph
    assert [v.name for v in (*frontend.input, *frontend.output)] == ["waveforms", "waveforms_lens", "features", "features_lens"]
    onnx_asr.shard(tmp_path, ["fp16", "fp32"], 2_000_000)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "sharded").iterdir()}
    assert "encoder-model.onnx" in sizes and len(sizes) > 3 and max(sizes.values()) <= 2_000_000
    with pytest.raises(UsageError, match="nothing to shard") as error:
        onnx_asr.shard(tmp_path, ["fp16", "int8-dynamic"], 1000)
    assert error.value.found == "fp16, int8-dynamic"


# native


@pytest.mark.parametrize(
    ("spec", "example", "language"), [(STREAMING, "native", ""), (OFFLINE, "native_offline", ""), (PROMPT, "native", " auto")]
)
def test_how_to_run_it_in_nemoport_and_in_onnxruntime(spec, example, language):
    """Of the first variant that the card names."""
    given = facts(spec, samples.CONFIG, "int8-static", "fp32")
    text = native.usage(given)
    assert f"as `python example.py . int8-static recording.wav{prompt_arguments(given)}`:" in text
    assert f"```python\n{example_text(example)}\n```" in text and nemoport_commands(given, "int8-static") in text
    assert bool(prompt_arguments(given)) == bool(language)


def test_a_build_that_lacks_a_file_is_no_package(build, tmp_path):
    assert native.SHARED == ("filterbank.bin", "filterbank.meta", "tokens.txt", "preprocessor.config", "frontend.onnx")
    assert native.SHARED_OPTIONAL == ("tokenizer.model", "spelling.json", "languages.json", "vocab.json", "metadata.json")
    (tmp_path / "build" / "shared").mkdir(parents=True)
    (tmp_path / "build" / "config.json").write_text("{}")
    for name in ("filterbank.bin", "tokens.txt", "frontend.onnx"):
        (tmp_path / "build" / "shared" / name).write_text("")
    (tmp_path / "package").mkdir()
    with pytest.raises(ArtifactError, match="is incomplete") as error:
        native.lay_out(tmp_path / "build", [], tmp_path / "package")
    assert error.value.found == "no filterbank.meta, preprocessor.config"
    assert error.value.expected == ", ".join(native.SHARED)


def test_a_build_becomes_a_package_with_what_it_has(build, tmp_path):
    native.lay_out(build, ["fp32"], tmp_path)
    shared = {path.name for path in (build / "shared").iterdir()}
    assert {path.name for path in (tmp_path / "shared").iterdir()} == shared & {*native.SHARED, *native.SHARED_OPTIONAL}
    assert {*native.SHARED, "tokenizer.model"} <= {path.name for path in (tmp_path / "shared").iterdir()}
    for name in ("config.json", "fp32/encoder_model.onnx", "fp32/decoder_model.onnx.data", "fp32/manifest.json"):
        assert (tmp_path / name).read_bytes() == (build / name).read_bytes()
