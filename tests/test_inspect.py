"""`nemoport inspect`: what it says of each kind, of what is refused and of other models, without weights, torch and NeMo."""

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from nemoport.cli import main
from nemoport.errors import UsageError
from nemoport.export.checkpoint import Checkpoint, read_checkpoint
from nemoport.export.containers.torch_header import read_header
from nemoport.export.inspection import inspect
from nemoport.export.other_models import NEMO, TRANSFORMERS
from nemoport.export.targets import targets
from nemoport.package.layouts import load_layout
from nemoport.pipeline.exports import exports

CHECKPOINTS = Path(__file__).parent.parent / "reference" / "checkpoints"
EN, MULTILINGUAL, TDT = (CHECKPOINTS / f"{name}.nemo" for name in ("streaming-en", "streaming-multilingual", "offline-tdt"))


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    with tarfile.open(EN) as tar:
        return {m.name.removeprefix("./"): tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}


def write(path: Path, members: dict[str, bytes], change) -> Path:
    config = yaml.safe_load(members["model_config.yaml"])
    config = change(config) or config
    with tarfile.open(path, "w") as tar:
        for name, data in {**members, "model_config.yaml": yaml.safe_dump(config).encode()}.items():
            (entry := tarfile.TarInfo(f"./{name}")).size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def printed(capsys, *arguments) -> tuple[int, dict]:
    code = main(["inspect", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("path", [EN, MULTILINGUAL, TDT])
def test_it_is_what_the_weights_and_the_spec_are(path, capsys):
    checkpoint = read_checkpoint(str(path))
    code, found = printed(capsys, path)
    weights = {k: w for k, w in checkpoint.load_weights().items() if not k.startswith("preprocessor.")}
    left_out = (".num_batches_tracked", ".running_mean", ".running_var")
    assert sum(found["parameters"].values()) == sum(w.numel() for k, w in weights.items() if not k.endswith(left_out))
    assert found["parameters"]["encoder"] == sum(
        w.numel() for k, w in weights.items() if k.startswith("encoder.") and not k.endswith(left_out)
    )
    assert code == 0 and found["exported"] and found["kind"] == checkpoint.spec.kind
    assert found["spec"] == checkpoint.spec.to_dict() and found["tokens"] == len(checkpoint.tokens)
    assert found["format"] == "nemo" and found["bytes"] == path.stat().st_size and list(found["dtypes"]) == ["F32"]
    assert found["heads"] == [checkpoint.spec.head]
    assert ("auto" in found["languages"]) == (checkpoint.spec.prompt is not None)


def test_lookaheads_have_their_latencies(capsys):
    _, found = printed(capsys, EN)
    assert found["latency_ms_by_lookahead"] == {"13": 1120.0, "6": 560.0, "1": 160.0, "0": 80.0}
    assert main(["inspect", str(EN)]) == 0
    text = capsys.readouterr().out
    assert "13 (1120 ms), 6 (560 ms), 1 (160 ms), 0 (80 ms); default 6" in text
    assert "16000 Hz, 128 mel bands" in text and f"{EN}: streaming-rnnt" in text


def test_what_it_can_be_exported_to_is_what_the_registries_take(reference_checkpoint):
    offline = read_checkpoint(str(TDT))
    for checkpoint in (reference_checkpoint, offline):
        found = {one.target: one for one in exports(checkpoint.spec, checkpoint.pieces)}
        assert found.keys() == targets().keys()
        for name, target in targets().items():
            one = found[name]
            if name != "onnx":
                assert {*one.precisions, *one.refused} == target.precisions.keys()
                assert list(one.precisions) == [p for p in target.precisions_of(checkpoint.spec) if p not in one.refused]
            assert all(len(why) > 10 for why in one.refused.values())
            assert bool(one.layouts) == bool(one.precisions)
        streaming = checkpoint.spec.streaming is not None
        assert ("kv-int8-weight" in found["onnx"].precisions) == streaming
        assert ("kv-int8-weight" in found["onnx"].refused) == (not streaming)
        assert "smoothed" not in found["onnx"].precisions
        assert bool(found["onnx"].layouts["onnx-asr"]) == streaming
        assert found["onnx"].layouts["native"] == ()


def test_the_reasons_of_a_layout_are_those_that_it_refuses_with(build, reference_checkpoint, tmp_path):
    problems = load_layout("onnx-asr").problems(reference_checkpoint.spec, reference_checkpoint.pieces)
    (tmp_path / "package").mkdir()
    with pytest.raises(UsageError) as caught:
        load_layout("onnx-asr").lay_out(build, ["fp32"], tmp_path / "package")
    assert problems and caught.value.found == "; ".join(problems)


def test_a_hybrid_has_both_heads(random_checkpoint, capsys):
    path = random_checkpoint("tiny-tdt_ctc")
    code, found = printed(capsys, path)
    assert code == 0 and found["heads"] == ["tdt", "ctc"] and found["kind"] == "offline-tdt"
    assert found["parameters"]["CTC decoder"] > 0
    code, found = printed(capsys, path, "--head", "ctc")
    assert code == 0 and found["heads"] == ["tdt", "ctc"] and found["kind"] == "offline-ctc"
    assert main(["inspect", str(path), "--head", "rnnt"]) == 2


def test_every_reason_is_given_at_once(members, tmp_path, capsys):
    def change(config: dict) -> None:
        config["encoder"] |= {"subsampling": "striding", "new_option": 3}
        config["preprocessor"]["window"] = "hamming"

    code, found = printed(capsys, write(tmp_path / "x.nemo", members, change))
    assert code == 2 and not found["exported"] and found["kind"] == "streaming-rnnt" and found["targets"] == {}
    assert {reason.split(" is ")[0] for reason in found["reasons"]} == {
        "preprocessor.window",
        "encoder.subsampling",
        "encoder.new_option",
    }
    assert found["todo"] and found["sizes"]["n_layers"] == 6 and sum(found["parameters"].values()) > 5e6
    assert main(["inspect", str(tmp_path / "x.nemo")]) == 2
    text = capsys.readouterr().out
    assert "not exported" in text and all(reason in text for reason in found["reasons"]) and "nearest" in text


def test_a_setting_out_of_its_bounds_is_a_reason(members, tmp_path, capsys):
    path = write(tmp_path / "x.nemo", members, lambda config: config["encoder"].update(n_heads=10**9))
    code, found = printed(capsys, path)
    assert code == 2 and "n_heads is 1000000000" in found["reasons"][0]


@pytest.mark.parametrize(
    "name", ["EncDecMultiTaskModel", "SortformerEncLabelModel", "EncDecMultiTalkerRNNTBPEModel", "SALM", *NEMO]
)
def test_other_models_of_nemo_are_named(name, members, tmp_path, capsys):
    def change(config: dict) -> dict:
        return {"target": f"nemo.collections.asr.models.x.{name}", "preprocessor": config["preprocessor"]}

    small = {key: b"" if key.endswith(".ckpt") else value for key, value in members.items()}
    code, found = printed(capsys, write(tmp_path / "x.nemo", small, change))
    assert code == 2 and found["model"] == name and found["what"] == NEMO[name] and found["kind"] == ""
    assert found["reasons"][0].startswith(f"target is {name}, not") and found["todo"]
    assert main(["inspect", str(tmp_path / "x.nemo")]) == 2
    assert f"{name}: {NEMO[name]}" in capsys.readouterr().out


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_other_models_of_transformers_are_named(name, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    code, found = printed(capsys, tmp_path)
    assert code == 2 and found["model"] == name and found["what"] == TRANSFORMERS[name]
    assert f"model_type is '{name}'" in found["reasons"][0] and found["todo"]


def test_model_types_are_those_of_transformers():
    auto = pytest.importorskip("transformers.models.auto.configuration_auto")
    # The folder of nemo_speechlm's code is what others call it by.
    assert TRANSFORMERS.keys() - {*auto.CONFIG_MAPPING_NAMES} == {"nemotron3_5_transcribe"}


def test_a_folder_of_canary_qwen_is_named(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_llm": "Qwen/Qwen3-1.7B", "pretrained_asr": "x"}))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    code, found = printed(capsys, tmp_path)
    assert code == 2 and found["model"] == "SALM" and "Canary-Qwen" in found["what"]


def test_what_cannot_be_read_is_an_error(tmp_path, capsys):
    (tmp_path / "x.nemo").write_bytes(b"hello")
    assert main(["inspect", str(tmp_path / "x.nemo")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_no_weights_are_read(monkeypatch):
    monkeypatch.setattr(Checkpoint, "load_weights", lambda self: pytest.fail("loaded"))
    monkeypatch.setattr("nemoport.export.containers.nemo.sha256_file", lambda path: pytest.fail("hashed"))
    assert inspect(str(EN)).checkpoint.sha256 == ""


SCRIPT = """
import sys
for name in ("torch", "nemo", "transformers", "safetensors", "onnx", "onnxruntime", "openvino"):
    sys.modules[name] = None
from nemoport.cli import main
raise SystemExit(main(["inspect", sys.argv[1]]))
"""


def test_it_needs_neither_torch_nor_nemo():
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(EN)], capture_output=True, text=True)
    assert done.returncode == 0 and "weights    5.2 M in F32" in done.stdout, done.stderr


def pickled(content: bytes) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as parts:
        parts.writestr("x/data.pkl", content)
    return stream


PICKLES = {
    "a function": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.",
    "a function of torch": b"\x80\x02ctorch\nload\nX\x02\x00\x00\x00id\x85R.",
    "a bytearray of 2^62": b"\x80\x05\x96" + (1 << 62).to_bytes(8, "little") + b".",
    "an entry 2^31": b"\x80\x02}r\xff\xff\xff\x7fh\x01.",
    "no mapping": b"\x80\x02]q\x01.",
    "no tensors": b"\x80\x02}X\x01\x00\x00\x00aK\x01s.",
    "an older protocol": b"(dp0\n.",
    "the end": b"\x80\x02",
    "nothing": b"",
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_that_does_anything_else_is_refused(case):
    with pytest.raises(ValueError):
        read_header(pickled(PICKLES[case]))


def test_torchs_files_are_read_alike():
    """Tensors of several types and parameters, as state_dict gives them."""
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).half()
    for tensors in (module.state_dict(), dict(module.named_parameters()), {"a": torch.zeros((), dtype=torch.bfloat16)}):
        torch.save(tensors, stream := io.BytesIO())
        found = read_header(stream)
        assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {n: one.shape for n, one in found.items()}
        kinds = {torch.float16: "F16", torch.int64: "I64", torch.bfloat16: "BF16"}
        assert all(found[name].dtype == kinds[tensor.dtype] for name, tensor in tensors.items())
