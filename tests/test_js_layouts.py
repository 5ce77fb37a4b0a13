"""The layouts transformers-js and parakeet-js: what each reads of a package, replayed with onnxruntime and tokenizers.

The packages themselves run in test_node_consumers.py.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from test_package import write_results

from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.package.assemble import package
from nemoport.package.layouts import load_layout, onnx_asr, parakeet_js, transformers_js
from nemoport.package.refusal import NO_PIECES
from nemoport.package.transformers_js_files import tokenizer
from nemoport.package.verify import verify
from nemoport.quantize import build_variant
from nemoport.recognizer import Recognizer
from nemoport.reference.random_checkpoint import pseudo_speech
from nemoport.tokens import Pieces, SpellingRule

CLIPS = [pseudo_speech(seed, seconds) for seed, seconds in ((5, 3.0), (6, 1.7))]


@pytest.fixture(scope="module")
def ctc_build(random_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctc")
    export_checkpoint(read_checkpoint(str(random_checkpoint("tiny-ctc"))), folder)
    build_variant(folder, "int8-weight", None, progress=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def ctc_package(ctc_build, tmp_path_factory):
    """In shards, as the weights of a large model are."""
    for variant in ("fp32", "int8-weight"):
        write_results(ctc_build, variant)
    dist = tmp_path_factory.mktemp("dist") / "package"
    options = {"licence": "apache-2.0", "layout": "transformers-js", "shard_bytes": 150_000}
    return package(ctc_build, dist, required_passes=lambda build, variant: [], **options)


def test_files_have_the_names_that_transformers_js_looks_for(ctc_package):
    config = json.loads((ctc_package / "config.json").read_text())
    section, names = config["transformers.js_config"], {path.name for path in (ctc_package / "onnx").iterdir()}
    beside = section["use_external_data_format"]
    assert beside["model.onnx"] > 2 and beside["model_uint8.onnx"] > 1 and section["dtype"] == "uint8"
    wanted = {f"{name}_data" + (f"_{i}" if i else "") for name, count in beside.items() for i in range(count)}
    assert names == {"model.onnx", "model_uint8.onnx"} | wanted
    assert all((ctc_package / "onnx" / name).stat().st_size <= 150_000 for name in wanted)
    assert (config["model_type"], config["vocab_size"], config["pad_token_id"]) == ("parakeet_ctc", 65, 64)
    extractor = json.loads((ctc_package / "preprocessor_config.json").read_text())
    assert extractor["feature_extractor_type"] == "ParakeetFeatureExtractor" and extractor["feature_size"] == 80


def test_a_package_for_transformers_js_verifies_and_its_card_says_how_to_run_it(ctc_package):
    assert any("finite frames of silence" in line for line in verify(ctc_package))
    card = (ctc_package / "README.md").read_text()
    assert 'dtype: "uint8"' in card and 'library_name: "transformers.js"' in card and "- transformers.js\n" in card


@pytest.mark.parametrize("variant", ["fp32", "int8-weight"])
def test_the_best_of_all_frames_is_nemoports_text(ctc_build, ctc_package, variant):
    """As the pipeline of transformers.js has it: every frame of a batch, padding too, and the tokenizer joins runs."""
    tokenizers = pytest.importorskip("tokenizers")
    recognizer = Recognizer.open(ctc_build / variant, threads=1)
    mels = []
    for clip in CLIPS:
        stream = recognizer.stream()
        stream.push(clip)
        stream.close()
        mels.append(stream.chunks[0].mel)
    longest = max(mel.shape[1] for mel in mels) + 9
    rows = np.stack([np.pad(mel, ((0, 0), (0, longest - mel.shape[1])), constant_values=3.0).T for mel in mels])
    mask = np.stack([np.arange(longest) < mel.shape[1] for mel in mels]).astype(np.int64)
    session = onnxruntime.InferenceSession(transformers_js.graphs(ctc_package, variant)[0])
    (logits,) = session.run(["logits"], {"input_features": rows, "attention_mask": mask})
    spelled = tokenizers.Tokenizer.from_file(str(ctc_package / "tokenizer.json"))
    blank = logits.shape[2] - 1
    for best, mel, clip in zip(logits.argmax(2), mels, CLIPS, strict=True):
        ours = next(recognizer.transcribe([clip]))
        assert len(ours.tokens) > 3 and (best[-(-mel.shape[1] // 8) :] == blank).all()
        assert spelled.decode(best.tolist(), skip_special_tokens=True).strip() == ours.text.strip()


def test_the_tokenizer_joins_runs_and_keeps_what_a_blank_parts():
    tokenizers = pytest.importorskip("tokenizers")
    pieces = Pieces(["<unk>", "\u2581the", "l", "\u2581l"], SpellingRule())
    spelled = tokenizers.Tokenizer.from_str(json.dumps(tokenizer(pieces)))
    blank = len(pieces)
    assert spelled.decode([1, 1, blank, 1, 3, 3, 2, blank, 2, 2, blank], skip_special_tokens=True) == "the the lll"
    assert spelled.decode([1, 0, 2]) == "the \u2047 l"


def test_what_transformers_js_cannot_run_is_refused_by_name(ctc_build, tmp_path):
    spec = Artifact.open(ctc_build / "fp32").spec
    (found,) = transformers_js.problems(replace(spec, kind="offline-rnnt"), NO_PIECES)
    assert found == "a model with the head rnnt, where it decodes CTC"
    named = Pieces(["<pad>"], SpellingRule())
    assert "named <pad>" in transformers_js.problems(spec, named)[0]
    with pytest.raises(UsageError, match="int4-mixed, for which it has no dtype"):
        transformers_js.lay_out(ctc_build, ["fp32", "int4-mixed"], tmp_path)
    assert [name for name in ("fp32", "int4-mixed", "kv-fp32") if load_layout("transformers-js").takes(name)] == ["fp32"]


def test_npm_packages_are_pinned_by_their_content():
    """Exact versions, a hash for each package, and no host: npm asks the one that it is set to."""
    node = Path(__file__).parent.parent / "bench" / "node"
    wanted = json.loads((node / "package.json").read_text())["dependencies"]
    packages = json.loads((node / "package-lock.json").read_text())["packages"]
    assert packages.pop("")["dependencies"] == wanted
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert all(one["integrity"].startswith("sha512-") and "resolved" not in one for one in packages.values())


@pytest.fixture(scope="module")
def tdt_build(random_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tdt")
    export_checkpoint(read_checkpoint(str(random_checkpoint("tiny-tdt"))), folder)
    return folder


def test_a_package_for_parakeet_js_has_the_files_of_onnx_asr(tdt_build, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="states of 2 x 32, where it has 2 x 640"):
        parakeet_js.lay_out(tdt_build, ["fp32"], tmp_path)
    monkeypatch.setattr(parakeet_js, "STATES", (2, 32))
    write_results(tdt_build, "fp32")
    options = {"licence": "apache-2.0", "layout": "parakeet-js", "required_passes": lambda build, variant: []}
    dist = package(tdt_build, tmp_path / "dist", **options)
    assert any("finite frames of silence" in line for line in verify(dist))
    (tmp_path / "theirs").mkdir()
    onnx_asr.lay_out(tdt_build, ["fp32"], tmp_path / "theirs")
    for path in (tmp_path / "theirs").iterdir():
        assert (dist / path.name).read_bytes() == path.read_bytes()
    assert (dist / "vocab.txt").read_text().splitlines()[-1] == "<blk> 96"
    # It feeds i32 targets, i64 lengths, and the external data under the name of the graph.
    decoder = {value.name: value.type.tensor_type.elem_type for value in onnx.load(dist / "decoder_joint-model.onnx").graph.input}
    assert (decoder["targets"], decoder["target_length"]) == (onnx.TensorProto.INT32,) * 2
    assert (dist / "encoder-model.onnx.data").is_file()
    card = (dist / "README.md").read_text()
    assert 'encoderQuant: "fp32"' in card and "nMels: 128" in card and "- parakeet.js\n" in card


@pytest.mark.parametrize(
    ("decoding", "kind", "reason"),
    [
        ({}, "offline-rnnt", "a model with the head rnnt, where it decodes TDT"),
        ({"max_symbols_per_frame": 5, "durations": (0, 1)}, "offline-tdt", "at most 5 tokens on a frame, where it has 10"),
        ({"durations": (0, 2)}, "offline-tdt", r"durations \[0, 2\]"),
        ({"pred_layers": 1, "durations": (0, 1)}, "offline-tdt", "states of 1 x 640, where it has 2 x 640"),
    ],
)
def test_what_parakeet_js_cannot_decode_is_refused_by_name(tdt_build, decoding, kind, reason):
    spec = Artifact.open(tdt_build / "fp32").spec
    sizes = {"pred_hidden": 640, "durations": (), **decoding}
    with pytest.raises(UsageError, match=reason):
        parakeet_js._check(replace(spec, kind=kind, decoding=replace(spec.decoding, **sizes)), ["fp32"])


def test_other_refusals_of_parakeet_js(tdt_build):
    spec = Artifact.open(tdt_build / "fp32").spec
    wide = replace(spec, decoding=replace(spec.decoding, pred_hidden=640))
    parakeet_js._check(wide, ["fp32", "fp16", "int8-smoothquant"])
    with pytest.raises(UsageError, match="int8-weight, which it has no name for"):
        parakeet_js._check(wide, ["fp32", "int8-weight"])
    with pytest.raises(UsageError, match="a space of another kind: 'a\\\\u3000b'"):
        parakeet_js._check(wide, ["fp32"], Pieces(["a\u3000b"], SpellingRule()))
