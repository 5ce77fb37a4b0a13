"""Checkpoints of a stranger: none runs code, writes a file, takes memory without bound, or ends in a traceback.

Each payload here only leaves a mark. The kinds of attack are those that were found to work or to crash before.
"""

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import damage
import pytest
import torch
import yaml

from nemoport.errors import CheckpointError
from nemoport.export import bounded_yaml
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.hyperparameters import NUMBERS
from nemoport.validate import nemo

CHECKPOINTS = Path(__file__).parent.parent / "reference" / "checkpoints"
WRITE = "nemo.collections.asr.parts.utils.diarization_utils.write_txt"  # NeMo 3.0.0 allows it as a _target_
CONFIG, WEIGHTS = "./model_config.yaml", "./model_weights.ckpt"


@pytest.fixture(scope="module")
def members() -> dict[str, bytes]:
    with tarfile.open(CHECKPOINTS / "streaming-en.nemo") as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}


def add(tar, name, data=b"", **header):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    for key, value in header.items():
        setattr(entry, key, value)
    tar.addfile(entry, io.BytesIO(data))


@pytest.fixture
def packed(members, tmp_path):
    """(change of the config, of the weights, further members (name, data, header)) -> path of a .nemo."""

    def write(change=None, weights=None, after=(), mode="w") -> Path:
        path = tmp_path / "hostile.nemo"
        config = yaml.safe_load(members[CONFIG])
        if change is not None:
            change(config)
        content = {**members, CONFIG: yaml.safe_dump(config, sort_keys=False).encode()}
        if weights is not None:
            content[WEIGHTS] = weights
        with tarfile.open(path, mode) as tar:
            for name, data in content.items():
                add(tar, name, data)
            for name, data, header in after:
                add(tar, name, data, **header)
        return path

    return write


def refused(path: Path) -> str:
    """The reason for which a checkpoint is refused, at the latest when its weights are read."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(path)).load_weights()
    error = caught.value
    assert error.what and error.expected and error.todo
    assert len(str(error)) < 5000 and str(error).isascii() and "\x1b" not in str(error)
    return error.found


def writes(mark: Path) -> dict:
    return {"_target_": WRITE, "w_path": str(mark), "val": "written by a checkpoint"}


# where a config may name a function -> the change that does it
TARGETS = {
    "spec_augment": lambda config, call: config.update(spec_augment=call),
    "below spec_augment": lambda config, call: config["spec_augment"].update(rng=call),
    "encoder": lambda config, call: config["encoder"].update(sync_max_audio_length=call),
    "encoder itself": lambda config, call: config["encoder"].update(call),
    "preprocessor": lambda config, call: config["preprocessor"].update(rng=call),
    "decoder": lambda config, call: config["decoder"].update(random_state_sampling=call),
    "joint": lambda config, call: config["joint"].update(preserve_memory=call),
    "loss": lambda config, call: config.update(loss=call),
    "tokenizer": lambda config, call: config["tokenizer"].update(custom_tokenizer=call),
    "adapters": lambda config, call: config["encoder"].update(adapters={"a": {**call, "enabled": True}}),
    "resolver": lambda config, call: config.update(optim={"name": "${oc.env:HOME}"}),
}


REFUSED = {"encoder itself": "_target_ is write_txt", "adapters": "encoder.adapters is", "tokenizer": "custom_tokenizer is"}


@pytest.mark.parametrize("place", TARGETS)
def test_a_function_named_by_a_config_is_not_run(packed, tmp_path, place):
    """The model is built all the same, as the config's own values describe it, or refused before NeMo."""
    mark = tmp_path / "mark"
    path = packed(lambda config: TARGETS[place](config, writes(mark)))
    if place in REFUSED:
        with pytest.raises(CheckpointError, match=REFUSED[place]):
            read_checkpoint(str(path))
        return
    checkpoint = read_checkpoint(str(path))
    assert "written by a checkpoint" in str(checkpoint.config) or place == "resolver"
    assert sum(p.numel() for p in nemo.restore(checkpoint).parameters()) > 1e6
    assert not mark.exists()


def test_nemo_runs_the_function(packed, tmp_path):
    """Without which the test above would prove nothing."""
    from nemo.collections.asr.models import ASRModel

    mark = tmp_path / "mark"
    path = packed(lambda config: TARGETS["below spec_augment"](config, writes(mark)))
    with nemo.quiet():
        try:
            ASRModel.restore_from(str(path), map_location="cpu")
        except Exception as error:
            assert not isinstance(error, FileNotFoundError)
    assert mark.exists()


def plain(value) -> bool:
    return isinstance(value, int | float | str | None) or (isinstance(value, list | tuple) and all(map(plain, value)))


@pytest.mark.parametrize("name", ["streaming-en", "streaming-multilingual", "offline-tdt"])
def test_the_model_is_what_nemo_restores(name):
    """Every weight, and every plain value of every module and of the decoding, except those that training alone uses."""
    from nemo.collections.asr.models import ASRModel

    path = str(CHECKPOINTS / f"{name}.nemo")
    with nemo.quiet():
        theirs = ASRModel.restore_from(path, map_location="cpu").eval()
    ours = nemo.restore(read_checkpoint(path))
    assert type(ours) is type(theirs)
    weights = theirs.state_dict()
    assert ours.state_dict().keys() == weights.keys()
    assert all(torch.equal(weights[key].float(), value) for key, value in ours.state_dict().items())
    training = ("dropout", "spec_augment", "loss", "tokenizer_dir", "model_guid", "_path", "dither", "fused_batch_size")
    pairs = [*((name, module, dict(ours.named_modules()).get(name)) for name, module in theirs.named_modules())]
    pairs += [("decoding", theirs.decoding, ours.decoding), ("decoder", theirs.decoding.decoding, ours.decoding.decoding)]
    compared = 0
    for at, one, other in pairs:
        for key, value in vars(one).items():
            label = f"{at}.{key}"
            if plain(value) and not any(word in label for word in training):
                assert vars(other)[key] == value, label
                compared += 1
    assert compared > 1000


ARCHIVES = {
    "second config": (CONFIG, b"encoder: 1", {}),
    "second config without ./": ("model_config.yaml", b"encoder: 1", {}),
    "second config by a detour": ("./a/../model_config.yaml", b"encoder: 1", {}),
    "second weights": (WEIGHTS, b"other", {}),
    "link": ("./linked", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    "config is a link": ("./model_config.yaml", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    "hard link": ("./linked", b"", {"type": tarfile.LNKTYPE, "linkname": "model_config.yaml"}),
    "device": ("zero", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
    "FIFO": ("fifo", b"", {"type": tarfile.FIFOTYPE}),
    "absolute": ("/tmp/mark", b"x", {}),
    "above": ("../../tmp/mark", b"x", {}),
    "folder above": ("../mark", b"", {"type": tarfile.DIRTYPE}),
    "escapes in a name": ("\x1b[31m\n/../../x", b"x", {"type": tarfile.FIFOTYPE}),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_can_be_read_two_ways_is_refused(packed, name):
    assert "member" in refused(packed(after=[ARCHIVES[name]]))


@pytest.mark.parametrize("name", ["a\nb", "<script>", "a|b", "\x1b[2J", "`x`", "a\u202eb"])
def test_a_name_that_a_card_cannot_hold_is_refused(tmp_path, name):
    """The file's name is the model's in every card, report and manifest."""
    path = tmp_path / f"{name}.nemo"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="has a name that a model card cannot hold") as caught:
        read_checkpoint(str(path))
    assert "\x1b" not in f"{caught.value}"


def test_too_many_members_are_refused(packed):
    assert "more than 1000 members" in refused(packed(after=[(f"m{i}", b"", {}) for i in range(1001)]))


@pytest.mark.parametrize("name", [CONFIG, "./padding", "pax"])
def test_an_archive_that_unpacks_to_far_more_is_refused(members, tmp_path, name):
    """600 KB on disk; in the config, in a member that nothing reads, or in a header that tarfile reads by itself."""
    path, size = tmp_path / "bomb.nemo", 600 << 20
    entry = tarfile.TarInfo("x" if name == "pax" else name)
    entry.size = size
    if name == "pax":
        entry.type = tarfile.XHDTYPE
    with gzip.open(path, "wb", 1) as file:
        file.write(entry.tobuf(tarfile.GNU_FORMAT))
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    assert "gzipped" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()


def test_a_gzipped_checkpoint_is_read(packed):
    assert read_checkpoint(str(packed(mode="w:gz"))).load_weights()


def aliases(levels: int) -> bytes:
    lines = ["x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    return "\n".join(lines + [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]" for i in range(1, levels)]).encode()


YAML = {
    "aliases": (aliases(10), "repeated by aliases"),
    "merged": (b"a: &a {x: 1}\nb: {<<: [" + b", ".join([b"*a"] * 200_000) + b"]}", "repeated by aliases"),
    "deep": (b"a: " + b"[" * 100_000 + b"]" * 100_000, "deep"),
    "deep by mappings": (b"a: " + b"{a: " * 5000 + b"1" + b"}" * 5000, "deep"),
    "itself": (b"a: &a [*a]", "itself"),
    "many": (b"a: [" + b"a, " * 1_000_000 + b"]", "more than 400000"),
    "long": (b"a: " + b"x" * (9 << 20), "more than"),
    "long number": (b"a: " + b"9" * 5000, ""),
    "no date": (b"a: 2001-99-99", ""),
    "mapping as a key": (b"? {a: 1}\n: 2", "mapping"),
}


@pytest.mark.parametrize("name", YAML)
def test_a_config_without_bounds_is_refused(name):
    text, reason = YAML[name]
    with pytest.raises(ValueError, match=reason):
        bounded_yaml.load(text)


def test_a_few_aliases_are_read():
    assert bounded_yaml.load(aliases(3))["x2"][9][9] == ["lol"] * 10


NAN, INF = float("nan"), float("inf")
VALUES = {
    "preprocessor": {
        "features": [10**9, -1, "many", 128.0, True, [1]],
        "n_fft": [2**40, -5],
        "window_size": [INF, NAN, 0, "0.025", -1],
        "window_stride": [0.0, NAN, 10**400],
        "sample_rate": [10**15, 0, "x"],
        "preemph": ["x", NAN, -INF],
    },
    "encoder": {
        "n_layers": [10**9, 0, -1, 6.5, "6"],
        "d_model": [10**9, 0, 175],
        "n_heads": [0, 7, -4],
        "att_context_size": [[10**9, 13], [70, 10**9], "70,13", [[70, 13], "x"], [[70.5, 1.5]], [[70, True]], [[70, 1]] * 99, {}],
        "conv_kernel_size": [10**12, 0, INF, -9],
        "subsampling_conv_channels": [10**12, "x"],
        "ff_expansion_factor": [10**9, 0],
        "pos_emb_max_len": [10**12, 0],
        "self_attention_model": ["\x1b[2J" * 1000, ["x" * 10**5] * 20],
    },
    "decoder.prednet": {"pred_hidden": [10**9, 0, "x"], "pred_rnn_layers": [10**9, 0], "dropout": [NAN, "x", 2]},
    "joint": {
        "vocabulary": [{"a": 1}, "abc", [1, None, ["x"]] * 32, ["a\nb 5"] * 96, ["\u2028"] * 96, ["\x1b[31m"] * 96, [""] * 96],
        "jointnet": [None, [], "x", {"activation": "relu", "joint_hidden": 10**9}],
    },
    "decoding": {
        "greedy": [{"max_symbols": 10**18}, {"max_symbols": -3}, "x", {"max_symbols": "x"}],
        "durations": [[10**9], "x", 5],
    },
    "": {
        "model_defaults": ["x", [1]],
        "encoder": [[], "x", 5],
        "joint": [[]],
        "preprocessor": ["x"],
        "target": [5, "\x1b]0;x\x07" * 100, "x" * 10**6],
        "loss": ["x", [1], {"loss_name": "tdt", "tdt_kwargs": "x"}],
        "decoding": ["x"],
        "tokenizer": ["x", {"model_path": "nemo:../../etc/passwd"}, {"model_path": "nemo:" + "\x1b" * 999}],
    },
}
CASES = [(section, key, value) for section, keys in VALUES.items() for key, values in keys.items() for value in values]


@pytest.mark.parametrize("section, key, value", CASES, ids=[f"{s}.{k}-{str(v)[:16]!r}" for s, k, v in CASES])
def test_a_hostile_value_is_refused_with_one_error(packed, section, key, value):
    def change(config):
        for part in section.split(".") if section else ():
            config = config[part]
        config[key] = value

    refused(packed(change))


PROMPTS = [
    *({name: 0} for name in ("en-US\n# x", "<b>", "\x1b[2J", 5, "e" * 65)),
    {"en": 10**12},
    {"en": True},
    ["en"],
    {f"l{i}": 0 for i in range(5000)},
]


@pytest.mark.parametrize("languages", PROMPTS, ids=lambda languages: str(languages)[:12])
def test_a_hostile_name_of_a_language_is_refused(members, tmp_path, languages):
    path = tmp_path / "hostile.nemo"
    with tarfile.open(CHECKPOINTS / "streaming-multilingual.nemo") as source, tarfile.open(path, "w") as tar:
        for entry in source.getmembers():
            data = source.extractfile(entry).read() if entry.isfile() else b""
            if entry.name == CONFIG:
                config = yaml.safe_load(data)
                config["model_defaults"]["prompt_dictionary"] = languages
                data = yaml.safe_dump(config).encode()
            if entry.isfile():
                add(tar, entry.name, data)
    assert "prompt_dictionary" in refused(path)


@pytest.mark.parametrize("forced", [False, True])
def test_pickled_weights_are_not_loaded(packed, tmp_path, monkeypatch, forced):
    """Also where the environment asks torch to load everything."""
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark, stream = tmp_path / "mark", io.BytesIO()
    torch.save({"encoder.weight": damage.Payload(mark)}, stream)
    assert "Weights only load failed" in refused(packed(weights=stream.getvalue()))
    assert not mark.exists()
    torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
    assert mark.is_dir()


def test_weights_without_names_are_refused(packed):
    stream = io.BytesIO()
    torch.save({"a": torch.ones(2), 7: torch.ones(2)}, stream)
    assert "something else than named tensors" in refused(packed(weights=stream.getvalue()))


def test_a_tensor_that_repeats_two_bytes_is_refused(members, packed):
    weights = torch.load(io.BytesIO(members[WEIGHTS]), weights_only=True)
    weights["encoder.more"] = torch.zeros(1, dtype=torch.float16).expand(3_000_000_000)
    stream = io.BytesIO()
    torch.save(weights, stream)
    assert "more values than the file holds" in refused(packed(weights=stream.getvalue()))


def test_weights_that_unpack_to_far_more_are_refused(members, packed):
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(members[WEIGHTS])) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        with new.open("archive/data/bomb", "w") as part:
            for _ in range(200):
                part.write(bytes(1 << 20))
    assert "unpack to more" in refused(packed(weights=stream.getvalue()))


def test_a_config_far_larger_than_the_weights_is_refused_before_nemo_allocates(packed):
    checkpoint = read_checkpoint(str(packed(lambda config: config["encoder"].update(n_layers=256, d_model=16_384, n_heads=4))))
    with pytest.raises(CheckpointError, match="weights of another model"):
        nemo.restore(checkpoint)


def test_nemo_without_a_tokenizer_is_refused(packed):
    checkpoint = read_checkpoint(str(packed(lambda config: config["tokenizer"].update(model_path="/etc/passwd"))))
    with pytest.raises(CheckpointError, match="SentencePiece model in the archive"):
        nemo.restore(checkpoint)


@pytest.mark.parametrize("key", NUMBERS)
def test_a_bool_is_no_number(key):
    """Python counts with it: True is one layer."""
    bounds = NUMBERS[key]
    assert not bounds.accepts(True) and not bounds.accepts(False)
    assert bounds.accepts(int(bounds.high))
