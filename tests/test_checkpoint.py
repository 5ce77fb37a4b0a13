"""Reading .nemo files: the reference checkpoint as it is, and every way in which one cannot be used."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest
import yaml

from nemoport.caches import NemoCaches
from nemoport.errors import CheckpointError, OutputError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.source import resolve
from nemoport.files import sha256_file
from nemoport.spec import DecodingSpec, FrontendSpec, ModelSpec, StreamingSpec

REFERENCE = Path(__file__).parent.parent / "reference" / "checkpoints" / "streaming-en.nemo"


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    with tarfile.open(REFERENCE) as tar:
        return {m.name.removeprefix("./"): tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}


@pytest.fixture
def rewritten(members, tmp_path):
    """(change of the config, members to replace; None: left out) -> path of a .nemo; weights are a stub."""

    def write(change=None, **replaced) -> Path:
        content = {**members, "model_weights.ckpt": b"stub"}
        content |= {name.replace("__", "."): data for name, data in replaced.items()}
        if change is not None:
            config = yaml.safe_load(content["model_config.yaml"])
            change(config)
            content["model_config.yaml"] = yaml.safe_dump(config).encode()
        return pack(tmp_path / "altered.nemo", content)

    return write


def pack(path: Path, content: dict[str, bytes | None]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            if data is not None:
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def refusal(path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(path))
    error = caught.value
    assert error.what and error.expected and error.found and error.todo
    assert error.exit_code == 2
    return error


def test_reference_is_the_published_structure():
    """Its figures as its recipe states them; the structure is that of the published model, only smaller."""
    checkpoint = read_checkpoint(str(REFERENCE))
    config, spec = checkpoint.config, checkpoint.spec
    assert spec == ModelSpec(
        kind="streaming-rnnt",
        frontend=FrontendSpec(16000, 128, 512, 400, 160, 0.97, 2.0**-24, "NA"),
        streaming=StreamingSpec(
            n_layers=config["encoder"]["n_layers"],
            d_model=config["encoder"]["d_model"],
            n_heads=config["encoder"]["n_heads"],
            left_context_enc_frames=70,
            lookaheads=(13, 6, 1, 0),
            conv_cache_frames=8,
            subsampling_factor=8,
            pre_encode_cache_mel_frames=9,
        ),
        decoding=DecodingSpec(
            vocab_size=len(checkpoint.tokens),
            pred_layers=2,
            pred_hidden=config["decoder"]["prednet"]["pred_hidden"],
            joint_hidden=config["joint"]["jointnet"]["joint_hidden"],
            max_symbols_per_frame=10,
        ),
    )
    assert checkpoint.tokens == tuple(config["joint"]["vocabulary"])
    assert checkpoint.sha256 == sha256_file(REFERENCE)
    assert checkpoint.name == "streaming-en" and checkpoint.base_model == ""
    assert ModelSpec.from_dict(spec.to_dict()) == spec


def test_reference_equals_nemo():
    """Cache sizes and windows as NeMo's own encoder computes them from the same file."""
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
    model = ASRModel.restore_from(str(REFERENCE), map_location="cpu").eval()
    checkpoint = read_checkpoint(str(REFERENCE))
    spec = checkpoint.spec
    for lookahead in spec.streaming.lookaheads:
        model.encoder.set_default_att_context_size([spec.streaming.left_context_enc_frames, lookahead])
        theirs = model.encoder.streaming_cfg
        first, later = (spec.streaming.chunk_mel_frames(lookahead, first=f) for f in (True, False))
        assert list(theirs.chunk_size) == [first, later]
        assert list(theirs.pre_encode_cache_size) == [0, spec.streaming.pre_encode_cache_mel_frames]
        assert theirs.drop_extra_pre_encoded == spec.streaming.drop_enc_frames
        assert theirs.valid_out_len == lookahead + 1
    shapes = NemoCaches.shapes(spec.streaming, 1)
    channel, time, _ = model.encoder.get_initial_cache_state(batch_size=1)
    assert tuple(channel.transpose(0, 1).shape) == shapes["cache_last_channel"]
    assert tuple(time.transpose(0, 1).shape) == shapes["cache_last_time"]
    assert model.tokenizer.vocab_size == spec.decoding.vocab_size
    assert tuple(model.tokenizer.ids_to_tokens(list(range(spec.decoding.vocab_size)))) == checkpoint.tokens
    assert spec.decoding.max_symbols_per_frame == model.cfg.decoding.greedy.max_symbols


# what is altered -> (the config's section, its key, the value; the reason that must be named)
UNSUPPORTED = {
    "hybrid with a prompt": (
        "",
        "target",
        "x.EncDecHybridRNNTCTCBPEModelWithPrompt",
        "target is EncDecHybridRNNTCTCBPEModelWith",
    ),
    "characters": ("", "target", "x.EncDecRNNTModel", "target is EncDecRNNTModel, not EncDecRNNTBPEModel"),
    "CTC of a transducer": ("", "target", "x.EncDecCTCModelBPE", "decoder._target_ is RNNTDecoder, not ConvASRDecoder"),
    "no target": ("", "target", None, "target is None"),
    "batch norm": ("encoder", "conv_norm_type", "batch_norm", "conv_norm_type is 'batch_norm', not 'layer_norm'"),
    "striding": ("encoder", "subsampling", "striding", "subsampling is 'striding', not 'dw_striding'"),
    "factor 4": ("encoder", "subsampling_factor", 4, "subsampling_factor is 4, not 8"),
    "not causal": ("encoder", "causal_downsampling", False, "causal_downsampling is False"),
    "regular context": ("encoder", "att_context_style", "regular", "att_context_style is 'regular'"),
    "full right context": ("encoder", "att_context_size", [[70, -1]], "not cache-aware"),
    "three contexts": ("encoder", "att_context_size", [[70, 1, 2]], "not cache-aware"),
    "one context": ("encoder", "att_context_size", [[70]], "not cache-aware"),
    "left contexts": ("encoder", "att_context_size", [[70, 1], [56, 6]], r"several left contexts \[56, 70\]"),
    "r and r + 2": ("encoder", "att_context_size", [[70, 1], [70, 3]], r"lookaheads r and r \+ 2 among \[1, 3\]"),
    "other attention": ("encoder", "self_attention_model", "rel_pos_local_attn", "self_attention_model is"),
    "global tokens": ("encoder", "global_tokens", 1, "global_tokens is 1"),
    "untied": ("encoder", "untie_biases", False, "untie_biases is False, not True"),
    "reduction": ("encoder", "reduction", "pooling", "reduction is 'pooling'"),
    "convolution context": ("encoder", "conv_context_size", [3, 5], r"conv_context_size is \[3, 5\], not 'causal'"),
    "per feature": ("preprocessor", "normalize", "per_feature", "normalize is 'per_feature', not 'NA'"),
    "other window": ("preprocessor", "window", "hamming", "window is 'hamming'"),
    "other log guard": ("preprocessor", "log_zero_guard_type", "clamp", "log_zero_guard_type is 'clamp'"),
    "TDT": ("", "loss", {"loss_name": "tdt"}, "loss.loss_name is 'tdt'"),
    "durations": ("joint", "num_extra_outputs", 5, "num_extra_outputs is 5"),
    "no vocabulary": ("joint", "vocabulary", None, "vocabulary is absent"),
    "tanh joint": ("joint", "jointnet", {"activation": "tanh"}, "activation is 'tanh', not 'relu'"),
    "no encoder": ("", "encoder", None, "has no encoder"),
}


def altered(config, name):
    section, key, value, _ = UNSUPPORTED[name]
    (config[section] if section else config)[key] = value


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_is_refused(rewritten, name):
    error = refusal(rewritten(lambda config: altered(config, name)))
    with pytest.raises(AssertionError, match=UNSUPPORTED[name][-1]):
        raise AssertionError(error.found)
    assert ";" not in error.found or name in ("tanh joint", "CTC of a transducer")  # nothing else is wrong with it


@pytest.mark.parametrize("contexts", [[-1, -1], None])
def test_full_context_is_judged_as_an_offline_model(rewritten, contexts):
    error = refusal(rewritten(lambda config: config["encoder"].update(att_context_size=contexts)))
    assert "this is offline-rnnt" in error.expected
    for needed in ("conv_norm_type is 'layer_norm', not 'batch_norm'", "normalize is 'NA', not 'per_feature'"):
        assert needed in error.found


def test_left_out_keys_have_nemos_defaults(rewritten):
    """A config that says nothing of them is one of NeMo's default model, which is another."""
    keys = ("conv_norm_type", "att_context_style", "subsampling", "causal_downsampling")
    error = refusal(rewritten(lambda config: [config["encoder"].pop(key) for key in keys]))
    assert all(key in error.found for key in keys)


def test_all_reasons_at_once(rewritten):
    names = "characters, batch norm, striding, regular context, left contexts, untied, per feature, TDT, durations".split(", ")
    error = refusal(rewritten(lambda config: [altered(config, name) for name in names]))
    assert len(error.found.split("; ")) == len(names)


MALFORMED = {
    "no rate": lambda config: config["preprocessor"].pop("sample_rate"),
    "layers as words": lambda config: config["encoder"].update(n_layers="six"),
    "no joint network": lambda config: config["joint"].update(jointnet=None),
    "context as a number": lambda config: config["encoder"].update(att_context_size=70),
    "context of words": lambda config: config["encoder"].update(att_context_size=["70", "13"]),
    "decoding a list": lambda config: config.update(decoding=[1]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_config_is_refused(rewritten, name):
    assert "model_config.yaml" in refusal(rewritten(MALFORMED[name])).found


YAML = {
    "bad": (b"a: [1", "flow sequence"),
    "bytes": (b"\xff\xfe\x00\x80", ""),
    "empty": (b"", "NoneType"),
    "a list": (b"- 1", "list"),
    "a Python object": (b"!!python/object/apply:os.system ['true']", "constructor"),
}


@pytest.mark.parametrize("name", YAML)
def test_bad_yaml_is_refused(rewritten, name):
    content, found = YAML[name]
    error = refusal(rewritten(model_config__yaml=content))
    assert "model_config.yaml" in error.found and found in error.found


@pytest.mark.parametrize("name", ["model_config.yaml", "model_weights.ckpt", "tokenizer"])
def test_missing_member_is_refused(rewritten, members, name):
    member = next(m for m in members if m.endswith(("tokenizer.model",) if name == "tokenizer" else (name,)))
    error = refusal(rewritten(**{member.replace(".", "__"): None}))
    assert f"no {member}" in error.found


@pytest.mark.parametrize("percent", [0, 0.001, 1, 30, 60, 99, 99.9])
@pytest.mark.parametrize("zipped", [False, True], ids=["tar", "gzipped tar"])
def test_truncated_is_refused(members, tmp_path, percent, zipped):
    """Wherever it is cut: in a header, in the config, in the weights."""
    path = pack(tmp_path / "whole.nemo", {**members, "model_weights.ckpt": members["model_weights.ckpt"][: 1 << 20]})
    content = gzip.compress(path.read_bytes(), 1) if zipped else path.read_bytes().rstrip(b"\0")
    cut = tmp_path / "cut.nemo"
    cut.write_bytes(content[: int(len(content) * percent / 100)])
    assert str(cut) in refusal(cut).what


def test_corrupt_gzip_is_refused(rewritten):
    path = rewritten()
    content = bytearray(gzip.compress(path.read_bytes(), 9))
    content[100:164] = bytes(64)
    path.write_bytes(content)
    refusal(path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    for name, content in {"text.nemo": b"hello" * 1000, "zeros.nemo": bytes(100_000), "zip.nemo": b"PK\x03\x04" * 999}.items():
        (tmp_path / name).write_bytes(content)
        refusal(tmp_path / name)
    (tmp_path / "folder").mkdir()
    assert "an empty directory" in refusal(tmp_path / "folder").found
    for name in ("nothing.nemo", "a/b/nothing.nemo", "nothing", "/nothing/at all"):
        error = refusal(tmp_path / name)
        assert error.found == "no such file" and name in error.what


class FakeHub:
    """Stands for huggingface_hub.HfApi."""

    files: list[str] | Exception = []

    def list_repo_files(self, repo, revision=None):
        if isinstance(self.files, Exception):
            raise self.files
        return self.files


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name, revision: f"/cache/{repo}/{revision}/{name}")
    return lambda files: monkeypatch.setattr(FakeHub, "files", files)


def test_hub_id_is_downloaded(hub):
    hub(["README.md", "model.nemo"])
    assert resolve("nvidia/some-model@abc123") == (Path("/cache/nvidia/some-model/abc123/model.nemo"), "nvidia/some-model@abc123")
    assert resolve("nvidia/some-model")[0] == Path("/cache/nvidia/some-model/None/model.nemo")


@pytest.mark.parametrize(
    "files, found",
    [
        (["README.md"], "none"),
        (["a.nemo", "b.nemo"], "a.nemo, b.nemo"),
        (ConnectionError("no route"), "no route"),
        (ConnectionError(), "ConnectionError"),
        (RuntimeError("a client's own class"), "a client's own class"),
    ],
)
def test_hub_id_that_cannot_be_used(hub, files, found):
    hub(files)
    assert refusal("nvidia/some-model@abc123").found == found


def test_hub_without_network(monkeypatch):
    """The real client, told that there is none: without, it tries again and again for 20 s."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "could not be downloaded" in refusal("nvidia/some-model").what


@pytest.fixture
def with_weights(members, tmp_path):
    """(change of the tensors, change of the config) -> a Checkpoint of them."""
    import torch

    tensors = torch.load(io.BytesIO(members["model_weights.ckpt"]), weights_only=True)

    def write(change=None, change_config=None):
        changed = dict(tensors)
        if change is not None:
            changed = change(changed) or changed
        config = yaml.safe_load(members["model_config.yaml"])
        if change_config is not None:
            change_config(config)
        stream = io.BytesIO()
        torch.save(changed, stream)
        yaml_text = yaml.safe_dump(config).encode()
        content = {**members, "model_weights.ckpt": stream.getvalue(), "model_config.yaml": yaml_text}
        return read_checkpoint(str(pack(tmp_path / "weights.nemo", content)))

    return write


def without(tensors, name):
    return {key: tensor for key, tensor in tensors.items() if key != name}


def zeroed(tensors, name, index, value):
    tensors[name] = tensors[name].clone()
    tensors[name][index] = value


FILTERBANK, WINDOW = "preprocessor.featurizer.fb", "preprocessor.featurizer.window"
LINEAR = "encoder.layers.0.feed_forward1.linear1.weight"
EMBEDDING = "decoder.prediction.embed.weight"
WEIGHTS = {
    "adapter": (lambda t: t.update({"encoder.layers.0.adapter_layer.x.weight": t[LINEAR]}), "adapter_layer"),
    "deeper": (lambda t: t.update({"encoder.layers.99.norm_out.weight": t[LINEAR]}), "layers.99"),
    "missing": (lambda t: without(t, LINEAR), LINEAR),
    "missing joint": (lambda t: without(t, "joint.enc.weight"), "joint.enc.weight"),
    "missing LSTM": (lambda t: without(t, "decoder.prediction.dec_rnn.lstm.weight_hh_l1"), "weight_hh_l1"),
    "missing norm": (lambda t: without(t, "encoder.layers.1.norm_out.bias"), "layers.1.norm_out.bias"),
    "nothing of it": (lambda t: {"other": t[LINEAR]}, "decoder.prediction.embed.weight"),
    "other shape": (lambda t: t.update({LINEAR: t[LINEAR][:, :-1]}), "weights.nemo"),
    "other LSTM": (lambda t: t.update({EMBEDDING: t[EMBEDDING][:, :-1]}), "weights.nemo"),
    "blank embedded": (lambda t: zeroed(t, EMBEDDING, -1, 1.0), "does not start from blank"),
    "filterbank differs": (lambda t: zeroed(t, FILTERBANK, (0, 3, 3), 1.0), "fb"),
    "filterbank not a number": (lambda t: zeroed(t, FILTERBANK, (0, 3, 3), float("nan")), "fb"),
    "filterbank of another size": (lambda t: t.update({FILTERBANK: t[FILTERBANK][:, :80]}), "fb"),
    "window differs": (lambda t: zeroed(t, WINDOW, 0, 0.5), "window"),
    "a list": (lambda t: [t], "something else than named tensors"),
    "names of numbers": (lambda t: {"a": 1}, "something else than named tensors"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_do_not_fit_are_refused(with_weights, tmp_path, name):
    """At export, when they are read; and nothing stands in the build folder, nor the folder itself."""
    change, message = WEIGHTS[name]
    checkpoint = with_weights(change)
    with pytest.raises(CheckpointError, match=message) as caught:
        export_checkpoint(checkpoint, tmp_path / "build" / "weights")
    assert caught.value.expected and caught.value.found and caught.value.todo
    assert not (tmp_path / "build").exists()


CONFIGS = {
    "more layers": lambda config: config["encoder"].update(n_layers=config["encoder"]["n_layers"] + 1),
    "fewer layers": lambda config: config["encoder"].update(n_layers=config["encoder"]["n_layers"] - 1),
    "other heads": lambda config: config["encoder"].update(n_heads=2 * config["encoder"]["n_heads"]),
    "other kernel": lambda config: config["encoder"].update(conv_kernel_size=7),
    "other width": lambda config: config["encoder"].update(d_model=config["encoder"]["d_model"] // 2),
    "fewer tokens": lambda config: config["joint"]["vocabulary"].pop(),
    "other prediction": lambda config: config["decoder"]["prednet"].update(pred_hidden=8),
    "one LSTM layer": lambda config: config["decoder"]["prednet"].update(pred_rnn_layers=1),
    "80 bands": lambda config: config["preprocessor"].update(features=80),
    "n_fft 1024": lambda config: config["preprocessor"].update(n_fft=1024),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_of_other_weights_is_refused(with_weights, tmp_path, name):
    with pytest.raises(CheckpointError):
        export_checkpoint(with_weights(change_config=CONFIGS[name]), tmp_path / "build" / "weights")
    assert not (tmp_path / "build").exists()


def test_damaged_weights_are_refused(members, tmp_path):
    """A tar that is whole with weights that are not."""
    weights = members["model_weights.ckpt"]
    middle = len(weights) // 2
    flipped = weights[:middle] + bytes([weights[middle] ^ 1]) + weights[middle + 1 :]
    for damage in (b"", b"stub", weights[:-100_000], bytes(5000) + weights[5000:], flipped):
        checkpoint = read_checkpoint(str(pack(tmp_path / "damaged.nemo", {**members, "model_weights.ckpt": damage})))
        with pytest.raises(CheckpointError, match="model_weights.ckpt"):
            export_checkpoint(checkpoint, tmp_path / "build" / "damaged")
        assert not (tmp_path / "build").exists()


def test_build_of_another_checkpoint_is_refused(with_weights, tmp_path):
    """The folder keeps what it holds; the same checkpoint again is reused."""
    build = tmp_path / "build"
    first = export_checkpoint(read_checkpoint(str(REFERENCE)), build)
    before = {path: path.stat().st_mtime_ns for path in build.rglob("*")}
    assert export_checkpoint(read_checkpoint(str(REFERENCE)), build).manifest == first.manifest
    with pytest.raises(OutputError, match="another checkpoint"):
        export_checkpoint(with_weights(lambda t: zeroed(t, LINEAR, 0, 0.0)), build)
    assert {path: path.stat().st_mtime_ns for path in build.rglob("*")} == before
    assert not [path for path in build.rglob(".*")]


def test_export_to_a_full_disk(tmp_path):
    """On a file system that the graphs do not fit on, where the machine lets us mount one."""
    import shutil
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(OutputError, match="too little room"):
            export_checkpoint(read_checkpoint(str(REFERENCE)), disk / "build")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_export_to_a_file_in_the_way(tmp_path):
    (tmp_path / "build").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        export_checkpoint(read_checkpoint(str(REFERENCE)), tmp_path / "build")
    assert (tmp_path / "build").read_text() == "in the way"


@pytest.mark.parametrize("text", ["\u2581 \u2581 \u2581the", "\u2581the \u2581 \u2581cat", "a \u2581", "\u2581 <unk> s"])
def test_text_is_what_sentencepiece_makes_of_tokens(text):
    """Strings of tokens that a trained model seldom gives: word starts alone, at the beginning too, and unknowns."""
    import sentencepiece

    from nemoport.tokens import detokenize

    checkpoint = read_checkpoint(str(REFERENCE))
    processor = sentencepiece.SentencePieceProcessor(model_proto=checkpoint.tokenizer)
    known = [checkpoint.tokens.index(piece) for piece in text.split(" ") if piece in checkpoint.tokens]
    assert len(known) > 1
    assert detokenize(checkpoint.tokens, known) == processor.decode(known)


OTHER_FILES = {
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git-lfs", "git lfs pull"),
    "web page": (b"\n<!DOCTYPE html><html><body>Sign in</body>", "web page", "hf download"),
    "safetensors": ((120).to_bytes(8, "little") + b'{"a": {}}' + bytes(200), "safetensors", "name the folder"),
    "GGUF": (b"GGUF" + bytes(600), "GGUF", "the .nemo file"),
    "empty": (b"", "empty", "download"),
    "old torch file": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch's older form", "load_from_checkpoint"),
    "pickle": (b"\x80\x04}\x94.", "pickled", "load_from_checkpoint"),
    "text": (b"hello" * 1000, "", "download or save it again"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_another_file_is_named_with_what_to_do(name, tmp_path):
    content, found, todo = OTHER_FILES[name]
    (path := tmp_path / "model.nemo").write_bytes(content)
    error = refusal(path)
    assert found in error.found and todo in error.todo
    assert ("download or save it again" in error.todo) == (name in ("text", "empty"))


@pytest.mark.parametrize("name, todo", [("epoch=3.ckpt", "load_from_checkpoint"), ("model.pt", "load_state_dict")])
def test_torchs_files_are_named_with_what_to_do(name, todo, tmp_path):
    import torch

    torch.save({"state_dict": {"a": torch.zeros(2)}}, tmp_path / name)
    error = refusal(tmp_path / name)
    assert "Lightning" in error.found and todo in error.todo and "save_to" in error.todo


def test_archives_around_a_checkpoint(members, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "ngc.zip", "w") as parts:
        parts.writestr("files/model.nemo", b"x")
    assert "holds files/model.nemo" in refusal(tmp_path / "ngc.zip").found
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as parts:
        parts.writestr("readme", b"x")
    assert refusal(tmp_path / "other.zip").found == "a zip"
    assert "holds model.nemo" in refusal(pack(tmp_path / "around.nemo", {"model.nemo": b"x"})).found
    folder = {f"unpacked/{name}": data for name, data in members.items()}
    error = refusal(pack(tmp_path / "deep.nemo", folder))
    assert "unpacked/model_config.yaml" in error.found and "tar -cf model.nemo -C unpacked/" in error.todo


def test_a_folder_with_one_checkpoint_is_that_checkpoint(rewritten, tmp_path):
    path = rewritten()
    assert read_checkpoint(str(path.parent)).path == path
    (tmp_path / "other.nemo").write_bytes(b"")
    error = refusal(path.parent)
    assert "altered.nemo, other.nemo" in error.found and "name" in error.todo


@pytest.mark.parametrize(
    "name, todo",
    [
        ("model_config.yaml", "tar -cf model.nemo -C"),
        ("model.safetensors", "add config.json, tokenizer.json"),
        ("encoder_model.onnx", "`nemoport doctor` reads exported graphs"),
        ("notes.txt", "name the .nemo file"),
        ("config.json", "name the .nemo file"),
    ],
)
def test_a_folder_without_a_checkpoint(name, todo, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    error = refusal(tmp_path)
    assert todo in error.todo and "download or save it again" not in error.todo


def test_the_kind_is_found_without_the_weights(rewritten, monkeypatch):
    """A checkpoint of gigabytes is neither hashed nor its weights read."""
    from nemoport.export import checkpoint
    from nemoport.export.containers import nemo

    monkeypatch.setattr(nemo, "sha256_file", lambda path: pytest.fail("hashed"))
    monkeypatch.setattr(checkpoint.Checkpoint, "load_weights", lambda self: pytest.fail("loaded"))
    assert checkpoint.checkpoint_kind(str(rewritten())) == "streaming-rnnt"
