"""Package layouts by themselves: their names, the format that the licence notice names, what they read of config.json."""

import json
import pkgutil

import pytest
from samples import CONFIG, OFFLINE_SPEC

from nemoport.config import read_config, streaming_encoder
from nemoport.errors import ArtifactError
from nemoport.package import layouts
from nemoport.package.layouts import load_layout
from nemoport.package.terms import resolve_terms
from nemoport.runtimes import load_runtime

FORMATS = {
    "native": "ONNX",
    "onnx-asr": "ONNX",
    "parakeet-js": "ONNX",
    "transformers-js": "ONNX",
    "sherpa-onnx": "ONNX",
    "genai": "ONNX",
    "parakeet-rs": "ONNX",
    "speech-core": "ONNX",
    "openvino": "OpenVINO",
    "coreai": "Core AI",
    "coreml": "Core ML",
    "litert": "LiteRT",
    "web": "ONNX",
}


def test_a_layouts_name_is_its_modules():
    modules = [module.name for module in pkgutil.iter_modules(layouts.__path__)]
    assert modules and {load_layout(name.replace("_", "-")).name.replace("-", "_"): name for name in modules} == {
        name: name for name in modules
    }
    assert set(layouts.layouts()) == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_the_licence_notice_names_the_layouts_own_format(name):
    title = load_runtime(load_layout(name).runtime).title
    notice = resolve_terms("", licence="apache-2.0").notice({"name": "x", "sha256": "f" * 64}, title, ["one", "two"])
    assert f"Changes: exported to {FORMATS[name]} and converted to these variants: one, two." in notice


def test_the_licence_notice_says_of_what_the_hash_is():
    terms, section = resolve_terms("", licence="apache-2.0"), {"name": "x", "sha256": "f" * 64}
    assert f"Checkpoint: a .nemo file with sha256 {'f' * 64}" in terms.notice(section, "ONNX", ["one"])
    folder = terms.notice({**section, "format": "safetensors"}, "ONNX", ["one"])
    assert ".nemo" not in folder and "a folder of Hugging Face transformers" in folder and f"sha256 {'f' * 64}" in folder


def read(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return read_config(folder)


def test_config_keeps_what_is_not_read(tmp_path):
    config = CONFIG | {"sample_rate": 16000, "more": {"x": 1}}
    assert read(tmp_path, config) == config
    assert streaming_encoder(read(tmp_path, config)) == CONFIG["encoder"]


@pytest.mark.parametrize("path", ["frame_seconds", "decoder", "checkpoint.sha256", "encoder.kv_cache_rule", "decoder.blank_id"])
def test_an_absent_key_is_named(path, tmp_path):
    config = json.loads(json.dumps(CONFIG))
    section, _, key = path.rpartition(".")
    del (config[section] if section else config)[key]
    with pytest.raises(ArtifactError, match=f"no {path}"):
        read(tmp_path, config)


def test_sections_of_the_kind_of_model(tmp_path):
    offline = CONFIG | {"spec": OFFLINE_SPEC, "encoder": {"input_rule": ""}}
    with pytest.raises(ArtifactError, match="offline encoder"):
        streaming_encoder(read(tmp_path, offline))
    with pytest.raises(ArtifactError, match=r"no encoder\.input_rule"):
        read(tmp_path, CONFIG | {"spec": OFFLINE_SPEC})
    with pytest.raises(ArtifactError, match=r"no prompt\.slots"):
        read(tmp_path, CONFIG | {"prompt": {"languages": {}, "language_tags": {}, "rule": "", "tag_rule": ""}})
    with pytest.raises(ArtifactError, match="encoder: Input should be"):
        read(tmp_path, CONFIG | {"encoder": "none"})
