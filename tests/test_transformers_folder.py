"""Checkpoints as folders of Hugging Face transformers: read as the .nemo that they were converted from, with transformers' own
saving as the converter; and what a stranger may have put into one."""

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import hf_folder
import hf_oracle
import numpy as np
import pytest

from nemoport.errors import CheckpointError
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.config import runtime_config
from nemoport.export.containers import transformers_families as families
from nemoport.export.containers.safetensors_file import MOST_HEADER_BYTES, read_header
from nemoport.export.containers.tokenizer_json import read_tokenizer
from nemoport.export.containers.transformers_weights import nemo_name
from nemoport.export.sentencepiece_model import BYTE, CONTROL, NORMAL, UNKNOWN_TYPE, USER_DEFINED, read_model
from nemoport.export.source import resolve
from nemoport.tokens import detokenize

CHECKPOINTS = Path(__file__).parent.parent / "reference" / "checkpoints"
COMMITTED = ("streaming-en", "streaming-multilingual", "offline-tdt")
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
sentencepiece = pytest.importorskip("sentencepiece")
load_file, save_file = (getattr(pytest.importorskip("safetensors.torch"), name) for name in ("load_file", "save_file"))


@pytest.fixture(scope="session")
def converted(random_checkpoint, tmp_path_factory):
    """name of a committed checkpoint or of a preset -> the checkpoint of its .nemo, and a folder that was made of it."""
    folder, made = tmp_path_factory.mktemp("transformers"), {}

    def pair(name: str):
        if name not in made:
            path = CHECKPOINTS / f"{name}.nemo" if name in COMMITTED else random_checkpoint(name)
            checkpoint = read_checkpoint(str(path))
            made[name] = checkpoint, hf_folder.save(checkpoint, folder / name)
        return made[name]

    return pair


@pytest.fixture
def copied(converted, tmp_path):
    """name, and file -> change of its JSON -> a folder of its own; the weights are linked."""

    def copy(name: str, **changes) -> Path:
        _, source = converted(name)
        (folder := tmp_path / "copied").mkdir()
        for path in source.iterdir():
            (os.link if path.suffix == ".safetensors" else shutil.copy)(path, folder / path.name)
        for file, change in changes.items():
            path = folder / f"{file}.json"
            content = json.loads(path.read_text())
            path.write_text(json.dumps(change(content) or content))
        return folder

    return copy


def refusal(path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(path)).load_weights()
    assert caught.value.expected and caught.value.found and caught.value.todo
    return caught.value


@pytest.mark.parametrize("name", [*COMMITTED, "tiny-rnnt", "tiny-ctc"])
def test_it_is_the_checkpoint_that_it_was_made_of(name, converted):
    nemo, folder = converted(name)
    found = read_checkpoint(str(folder))
    assert (found.spec, found.tokens, found.spelling) == (nemo.spec, nemo.tokens, nemo.spelling)
    assert found.name == name and found.path == folder
    weights, theirs = found.load_weights(), nemo.load_weights()
    assert {key for key in theirs if not key.startswith("preprocessor.")} == weights.keys()
    assert all(torch.equal(weight, theirs[key]) and weight.dtype == torch.float32 for key, weight in weights.items())
    assert found.weights_bytes == sum(4 * weight.numel() for weight in weights.values())
    assert runtime_config(found)["checkpoint"] == {"name": name, "sha256": found.sha256, "format": "safetensors"}
    assert "format" not in runtime_config(nemo)["checkpoint"]


@pytest.mark.parametrize("name", [*COMMITTED, "tiny-rnnt", "tiny-ctc"])
def test_nemo_and_transformers_write_the_same_text_of_it(name, converted):
    from nemoport.reference.random_checkpoint import pseudo_speech
    from nemoport.validate import nemo, nemo_runs

    _, folder = converted(name)
    checkpoint, processor = read_checkpoint(str(folder)), transformers.AutoProcessor.from_pretrained(folder)
    streaming, prompt = checkpoint.spec.streaming, checkpoint.spec.prompt
    second = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0]).from_pretrained(folder)
    model, slot = nemo.restore(checkpoint), prompt.languages["en-US"] if prompt else None
    for seed in (77, 78):
        samples = pseudo_speech(seed, 4.0)
        for lookahead in checkpoint.spec.lookaheads[:2]:
            with nemo.exact(model):
                run = nemo_runs.offline(model, samples, lookahead, slot)
            mel = (hf_oracle.mel if streaming else hf_oracle.parakeet_mel)(samples, checkpoint.spec.frontend.n_mels)
            with torch.inference_mode():
                if streaming:
                    theirs = hf_oracle.offline_tokens(second.eval(), *mel, lookahead, slot)
                else:
                    theirs = hf_oracle.parakeet_tokens(second.eval(), *mel)
            assert len(run.tokens) > 1 and run.tokens == theirs
            assert detokenize(checkpoint.pieces, run.tokens) == run.text
            tagless = [token for token in theirs if not checkpoint.tokens[token].startswith("<")]
            text = processor.decode(list(theirs), skip_special_tokens=True, group_tokens=False)
            assert text.split() == detokenize(checkpoint.pieces, tagless).split()


def test_the_hash_is_that_of_what_sha256sum_prints(converted):
    """Of every file that is read, and of no other."""
    _, folder = converted("streaming-en")
    names = sorted(["config.json", "tokenizer.json", "processor_config.json", "model.safetensors"])
    printed = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    assert read_checkpoint(str(folder)).sha256 == hashlib.sha256(printed.encode()).hexdigest()


@pytest.mark.parametrize("file", ["config", "tokenizer", "processor_config"])
def test_another_hash_for_another_file(file, copied, converted):
    folder = copied("streaming-en")
    before = read_checkpoint(str(folder)).sha256
    assert before == read_checkpoint(str(converted("streaming-en")[1])).sha256
    (path := folder / f"{file}.json").write_text(path.read_text() + "\n")
    assert read_checkpoint(str(folder)).sha256 != before
    (folder / "README.md").write_text("x")


def test_shards_are_one_checkpoint(converted, tmp_path):
    nemo, whole = converted("tiny-rnnt")
    folder = hf_folder.save(nemo, tmp_path / "shards", max_shard_size="100KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2 and not (folder / "model.safetensors").exists()
    found, one = read_checkpoint(str(folder)), read_checkpoint(str(whole)).load_weights()
    weights = found.load_weights()
    assert weights.keys() == one.keys() and all(torch.equal(weights[key], one[key]) for key in one)
    (folder / "model-00009-of-00009.safetensors").write_bytes(b"in no index")
    assert read_checkpoint(str(folder)).sha256 == found.sha256
    for path in (shards[0], folder / "model.safetensors.index.json"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b" " if path.suffix == ".json" else content[:-1] + bytes([content[-1] ^ 1]))
        assert read_checkpoint(str(folder)).sha256 != found.sha256
        path.write_bytes(content)


def index(folder: Path, **changes) -> None:
    """Makes the weights a shard of an index, with changes of its weight_map."""
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    names = dict.fromkeys(read_header(folder / "model-1.safetensors"), "model-1.safetensors") | changes
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {k: v for k, v in names.items() if v is not None}})
    )


BIAS = "encoder.layers.0.norm_out.bias"
WRONG_INDEX = {
    "a file outside": ({BIAS: "../model-1.safetensors"}, "weight_map"),
    "an absolute path": ({BIAS: "/etc/model.safetensors"}, "weight_map"),
    "a pickle": ({BIAS: "pytorch_model.bin"}, "weight_map"),
    "no text": ({BIAS: ["model-1.safetensors"]}, "weight_map"),
    "a missing file": ({BIAS: "model-0.safetensors"}, "no model-0.safetensors"),
    "a tensor that no file has": ({"x": "model-1.safetensors"}, "differ in x"),
    "a tensor that it leaves out": ({BIAS: None}, f"differ in {BIAS}"),
}


@pytest.mark.parametrize("case", WRONG_INDEX)
def test_an_index_that_does_not_hold_is_refused(case, copied):
    changes, found = WRONG_INDEX[case]
    index(folder := copied("tiny-rnnt"), **changes)
    assert found in refusal(folder).found


def test_an_index_of_one_shard_holds(copied):
    index(folder := copied("tiny-rnnt"))
    assert len(read_checkpoint(str(folder)).load_weights()) > 50


def test_a_link_may_not_leave_the_folder(copied, tmp_path):
    folder = copied("tiny-rnnt")
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    error = refusal(folder)
    assert "a link to a file outside" in error.found and "copy the file" in error.todo
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    assert "no model.safetensors" in refusal(folder).found


def test_the_links_of_the_hubs_cache_are_followed(copied, tmp_path):
    cache = tmp_path / "models--a--b"
    (snapshot := cache / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, path in enumerate(sorted(copied("tiny-rnnt").iterdir())):
        path.rename(cache / "blobs" / str(number))
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", str(number)))
    assert read_checkpoint(str(snapshot)).spec.kind == "offline-rnnt"


def test_nothing_is_unpickled(copied, monkeypatch):
    folder = copied("tiny-rnnt")
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")

    def fail(*arguments, **options):
        raise AssertionError("unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (pickle, "_Unpickler")):
        monkeypatch.setattr(module, name, fail)
    assert read_checkpoint(str(folder)).load_weights()
    (folder / "model.safetensors").unlink()
    error = refusal(folder)
    assert "pytorch_model.bin" in error.found and "save_pretrained" in error.todo


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_taken_as_float32(dtype, converted, tmp_path):
    nemo, _ = converted("tiny-rnnt")
    folder = hf_folder.save(nemo, tmp_path / "half")
    tensors = load_file(folder / "model.safetensors")
    halved = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    save_file(halved, folder / "model.safetensors", {"format": "pt"})
    found = read_checkpoint(str(folder))
    weights = found.load_weights()
    for name, tensor in halved.items():
        assert torch.equal(weights[nemo_name(name)], tensor.float()) and weights[nemo_name(name)].dtype == torch.float32
    assert found.weights_bytes == sum(4 * t.numel() for t in tensors.values())


def without(*keys, below: str = ""):
    def change(content: dict) -> None:
        for key in keys:
            (content[below] if below else content).pop(key)

    return change


def setting(below: str = "", **values):
    def change(content: dict) -> None:
        (content[below] if below else content).update(values)

    return change


def test_an_absent_key_is_the_default_of_its_class(copied):
    """Which is true for biases and the scaled input, and not what the published streaming models have."""
    keys = ("attention_bias", "convolution_bias", "scale_input", "num_mel_bins", "conv_kernel_size")
    changed = copied("tiny-rnnt", config=without(*keys, below="encoder_config"))
    found, named = read_checkpoint(str(changed)), ("use_bias", "xscaling")
    assert [found.config["encoder"][key] for key in named] == [True, True] and found.spec.frontend.n_mels == 80


def test_the_defaults_are_those_of_transformers():
    def of(name: str) -> dict:
        return getattr(transformers, name)().to_dict()

    names = {
        "parakeet_ctc": "ParakeetCTC",
        "parakeet_rnnt": "ParakeetRNNT",
        "parakeet_tdt": "ParakeetTDT",
        "nemotron_asr_streaming": "NemotronAsrStreaming",
        "nemotron3_5_asr": "Nemotron3_5Asr",
    }
    assert names.keys() == families.FAMILIES.keys()
    for model, name in names.items():
        family, theirs = families.FAMILIES[model], of(f"{name}Config")
        assert {key: list(v) if isinstance(v := theirs[key], tuple) else v for key in family.head} == dict(family.head)
        encoder = of("NemotronAsrStreamingEncoderConfig" if family.streaming else "ParakeetEncoderConfig")
        assert {key: encoder[key] for key in family.encoder} == dict(family.encoder)
        every = {*families.ANY_MODEL.split(), *families.WITHOUT_EFFECT["config.json"].split()}
        assert theirs.keys() <= {*family.head, *every}
        assert encoder.keys() <= {
            *family.encoder,
            *families.ANY_MODEL.split(),
            *families.WITHOUT_EFFECT["encoder_config"].split(),
        }
        extractor = getattr(transformers, family.extractor)()
        assert {key: getattr(extractor, key) for key in families.FEATURES} == dict(families.FEATURES)
    assert families.LOOKAHEADS == [13, 6, 1, 0]


def test_lookaheads_and_languages_are_the_processors(copied):
    def change(processor: dict) -> None:
        processor.update(supported_num_lookahead_tokens=[6, 3, 0], default_num_lookahead_tokens=0)
        processor["prompt_dictionary"] = {"auto": 5, "de-DE": 2}

    spec = read_checkpoint(str(copied("streaming-multilingual", processor_config=change))).spec
    assert spec.streaming.lookaheads == (0, 6, 3)  # the default is the first
    assert spec.streaming.left_context_enc_frames == 56
    assert spec.prompt.languages == {"auto": 5, "de-DE": 2}


def test_the_files_of_older_versions_are_read(copied):
    """The feature extractor in a file of its own; merges as texts."""

    def merges(tokenizer: dict) -> None:
        tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]

    folder = copied("offline-tdt", tokenizer=merges)
    before = read_checkpoint(str(folder))
    processor = json.loads((folder / "processor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(processor.pop("feature_extractor")))
    (folder / "processor_config.json").write_text(json.dumps(processor))
    assert read_checkpoint(str(folder)).spec == before.spec
    (folder / "processor_config.json").unlink()
    assert read_checkpoint(str(folder)).spec == before.spec
    (folder / "preprocessor_config.json").unlink()
    assert "no processor_config.json" in refusal(folder).found


# checkpoint, file, change -> what is named
REFUSED = {
    "one bias": ("tiny-rnnt", "config", setting("encoder_config", convolution_bias=False), "convolution_bias is False, not True"),
    "another blank": ("tiny-rnnt", "config", setting(blank_token_id=0), "blank_token_id is 0, not"),
    "gelu": ("tiny-rnnt", "config", setting("encoder_config", hidden_act="gelu"), "hidden_act is 'gelu'"),
    "joint's activation": ("tiny-rnnt", "config", setting(hidden_act="tanh"), "activation is 'tanh', not 'relu'"),
    "a new option": ("tiny-rnnt", "config", setting("encoder_config", att_context="x"), "att_context is 'x', an unknown option"),
    "quantized": ("tiny-rnnt", "config", setting(quantization_config={"bits": 4}), "quantization_config"),
    "own code": ("tiny-rnnt", "config", setting(auto_map={"AutoModel": "x.Y"}), "auto_map"),
    "bands": ("tiny-rnnt", "processor_config", setting("feature_extractor", feature_size=128), "feature_size is 128, not the 80"),
    "normalisation": (
        "tiny-rnnt",
        "processor_config",
        setting("feature_extractor", feature_extractor_type="NemotronAsrStreamingFeatureExtractor"),
        "not 'ParakeetFeatureExtractor'",
    ),
    "subsampling": ("tiny-rnnt", "config", setting("encoder_config", subsampling_factor=4), "subsampling_factor is 4, not 8"),
    "text for a number": ("tiny-rnnt", "config", setting("encoder_config", hidden_size="64"), "hidden_size is '64'"),
    "true for a number": ("tiny-rnnt", "config", setting("encoder_config", num_hidden_layers=True), "num_hidden_layers is True"),
    "no encoder": ("tiny-rnnt", "config", without("encoder_config"), "no section encoder_config"),
    "too wide": (
        "tiny-rnnt",
        "config",
        setting("encoder_config", hidden_size=1 << 40, intermediate_size=1 << 42),
        "d_model is 1099511627776",
    ),
    "no width": ("tiny-rnnt", "config", setting("encoder_config", hidden_size=0), "d_model is 0"),
    "more pieces": ("tiny-rnnt", "config", setting(vocab_size=1 << 40, blank_token_id=(1 << 40) - 1), "pieces, where the model"),
    "fewer pieces": ("tiny-rnnt", "config", setting(vocab_size=1, blank_token_id=0), "pieces, where the model has 0"),
    "durations": ("offline-tdt", "config", setting(durations=[0, "1"]), "durations is [0, '1']"),
    "prompt's width": ("streaming-multilingual", "config", setting(prompt_intermediate_size=9), "prompt_intermediate_size is 9"),
    "no languages": ("streaming-multilingual", "processor_config", without("prompt_dictionary"), "prompt_dictionary is absent"),
    "slots": ("streaming-multilingual", "config", setting(num_prompts=5), "leaves the 5 slots"),
    "default lookahead": (
        "streaming-en",
        "processor_config",
        setting(default_num_lookahead_tokens=5),
        "default_num_lookahead_tokens is 5",
    ),
    "no lookahead": ("streaming-en", "processor_config", setting(supported_num_lookahead_tokens=[]), "none of []"),
    "Unigram": ("tiny-rnnt", "tokenizer", setting("model", type="Unigram"), "model.type is 'Unigram'"),
    "bytes as letters": ("tiny-rnnt", "tokenizer", setting(decoder={"type": "ByteLevel"}), "decoder is ['ByteLevel']"),
    "no unknown piece": ("tiny-rnnt", "tokenizer", setting("model", unk_token=None), "unk_token is None"),
    "a merge": ("tiny-rnnt", "tokenizer", setting("model", merges=[["a"]]), "a merge ['a']"),
    "an id twice": ("tiny-rnnt", "tokenizer", setting(added_tokens=[{"id": 3, "content": "x"}]), "two pieces of id 3"),
    "another model": ("tiny-rnnt", "config", setting(model_type="whisper"), "model_type is 'whisper', not parakeet_ctc"),
    "transcribe": ("tiny-rnnt", "config", setting(model_type="nemotron3_5_transcribe"), "model_type is 'nemotron3_5_transcribe'"),
    "a list": ("tiny-rnnt", "config", setting(model_type=["parakeet_rnnt"]), "model_type is ['parakeet_rnnt']"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_exported_is_named(case, copied):
    name, file, change, found = REFUSED[case]
    error = refusal(copied(name, **{file: change}))
    assert found in error.found


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "processor_config.json"])
@pytest.mark.parametrize("content", [b"[]", b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000, b"", b"1" * 10_000])
def test_what_is_no_json_is_refused(file, content, copied):
    folder = copied("tiny-rnnt")
    (folder / file).write_bytes(content)
    assert file in refusal(folder).found


def test_the_pieces_have_the_types_that_they_had():
    """Control symbols are silent and language tags are not, though both are marked special; bytes are bytes if all are there."""
    pieces = ["<unk>", "<pad>", "<de-DE>", "<|x|>", "\u2581a", *(f"<0x{byte:02X}>" for byte in range(256))]
    added = [(1, "<pad>", True), (2, "<de-DE>", True), (3, "<|x|>", False), (len(pieces), "<blank>", True)]
    content = {
        "model": {
            "type": "BPE",
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": [["\u2581", "a"]],
            "unk_token": "<unk>",
        },
        "decoder": {"type": "Metaspace"},
        "added_tokens": [{"id": i, "content": text, "special": special} for i, text, special in added],
    }
    found, model = read_tokenizer(content, len(pieces))
    assert found == pieces
    types = [UNKNOWN_TYPE, CONTROL, USER_DEFINED, USER_DEFINED, NORMAL, *[BYTE] * 256]
    assert read_model(model).pieces == tuple(zip(pieces, types, strict=True))
    assert sentencepiece.SentencePieceProcessor(model_proto=model).decode([4, 2, 1, 4 + 1 + ord("!")]) == "a<de-DE>!"
    found, model = read_tokenizer(content, len(pieces) - 1)
    assert {kind for _, kind in read_model(model).pieces[5:]} == {NORMAL}


@pytest.mark.parametrize("name", COMMITTED)
def test_the_tokenizer_splits_and_joins_as_the_original(name, converted):
    nemo, folder = converted(name)
    theirs, ours = (
        sentencepiece.SentencePieceProcessor(model_proto=one.tokenizer) for one in (nemo, read_checkpoint(str(folder)))
    )
    texts = [json.loads(line)["text"] for line in (CHECKPOINTS.parent / "audio" / "eval.jsonl").read_text().splitlines()]
    for text in [*texts, *(text.upper() for text in texts[:20]), "  \ufb01ne   \u2460 <de-DE> \u00fc \u0928 x ", ""]:
        assert ours.encode(text) == theirs.encode(text)
    rng = np.random.default_rng(0)
    for ids in rng.integers(0, len(nemo.tokens), (200, 7)).tolist():
        assert ours.decode(ids) == theirs.decode(ids)


def header(entries: object, data: int = 8) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def entry(first: int = 0, last: int = 8, shape: object = (2,), dtype: object = "F32", **more) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last], **more}


HEADERS = {
    "empty": b"",
    "seven bytes": bytes(7),
    "no header": bytes(8),
    "longer than the file": (1 << 40).to_bytes(8, "little") + b"{}",
    "2^64 - 1": b"\xff" * 8 + b"{}",
    "a list": header([]),
    "no JSON": header(b"{a}"),
    "a space before": header(b" {}", 0),
    "not UTF-8": header(b'{"\xff": 1}'),
    "deep": header(b'{"a":' + b"[" * 100_000),
    "a name twice": header(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2)),
    "metadata": header({"__metadata__": {"a": {}}}, 0),
    "metadata of another kind": header({"__metadata__": []}, 0),
    "no entry": header({"a": 1}),
    "a key more": header({"a": entry(x=1)}),
    "a key less": header({"a": {"dtype": "F32", "shape": [2]}}),
    "another type": header({"a": entry(dtype="F64")}),
    "no type": header({"a": entry(dtype=["F32"])}),
    "quantized": header({"a": entry(dtype="F8_E4M3", shape=[8])}),
    "negative": header({"a": entry(shape=[-2])}),
    "a product that overflows": header({"a": entry(shape=[1 << 40, 1 << 40, 1 << 40])}),
    "many dimensions": header({"a": entry(shape=[1] * 1000 + [2])}),
    "a float": header({"a": entry(shape=[2.0])}),
    "true": header({"a": entry(0, 4, shape=[True])}, 4),
    "offsets of texts": header({"a": {**entry(), "data_offsets": ["0", "8"]}}),
    "three offsets": header({"a": {**entry(), "data_offsets": [0, 8, 8]}}),
    "backwards": header({"a": entry(8, 0)}),
    "behind the end": header({"a": entry(8, 16)}),
    "of another size": header({"a": entry(shape=[3])}),
    "overlapping": header({"a": entry(), "b": entry(4, 12)}, 12),
    "the same bytes": header({"a": entry(), "b": entry()}),
    "a gap": header({"a": entry(), "b": entry(12, 20)}, 20),
    "bytes behind": header({"a": entry()}, 9),
    "no tensors but data": header({}),
    "a control": header({"a\x1b[2J": entry()}),
    "a long name": header({"a" * 10_000: entry()}),
    "no name": header({"": entry()}),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_does_not_hold_is_refused(case, tmp_path):
    (path := tmp_path / "x.safetensors").write_bytes(HEADERS[case])
    with pytest.raises(ValueError) as caught:
        read_header(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


def test_a_header_of_100_mb_is_not_read(tmp_path):
    with open(path := tmp_path / "x.safetensors", "wb") as file:
        file.write((100 << 20).to_bytes(8, "little"))
        file.truncate((100 << 20) + 8)
    with pytest.raises(ValueError, match=f"more than {MOST_HEADER_BYTES}"):
        read_header(path)


def test_what_the_library_writes_is_read(tmp_path):
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
    tensors = {name: torch.arange(6).reshape(2, 3).to(kind) for name, kind in kinds.items()} | {"none": torch.zeros(0, 5)}
    save_file(tensors, path := tmp_path / "x.safetensors", {"format": "pt"})
    found = read_header(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        values = found[name].load()
        assert np.array_equal(values, tensor.float().numpy()) and values.dtype == np.float32
    assert {name: found[name].dtype for name in kinds} == dict(zip(kinds, kinds, strict=True))


@pytest.mark.parametrize("dtype", ["I8", "U8", "F8_E4M3", "F8_E5M2", "F4", "I4", "U4"])
def test_a_header_of_quantized_weights_is_named_so(dtype, tmp_path):
    (path := tmp_path / "x.safetensors").write_bytes(header({"a": entry(dtype=dtype)}))
    with pytest.raises(ValueError, match="quantized weights"):
        read_header(path)


def test_the_bounds_of_a_header_are_those_that_are_stated(tmp_path):
    def read(name: str = "a", dimensions: int = 1) -> int:
        (path := tmp_path / "x.safetensors").write_bytes(header({name: entry(shape=[1] * (dimensions - 1) + [2])}))
        return len(read_header(path))

    assert read("a" * 512) == read(dimensions=8) == 1
    for over in ({"name": "a" * 513}, {"dimensions": 9}):
        with pytest.raises(ValueError):
            read(**over)


def test_a_damaged_file_is_refused_by_its_name(copied):
    folder = copied("tiny-rnnt")
    content = (path := folder / "model.safetensors").read_bytes()
    path.unlink()  # it is linked
    path.write_bytes(content[:-4])
    assert "model.safetensors" in refusal(folder).found


@pytest.mark.parametrize(
    "change, found",
    [
        (lambda t: t.update({"encoder.layers.0.self_attn.linear_q.weight": torch.zeros(64, 64)}), "as another tensor is"),
        (lambda t: t.update({BIAS: torch.zeros(64, dtype=torch.int64)}), f"{BIAS} holds whole numbers"),
    ],
)
def test_tensors_that_no_model_has(change, found, converted, tmp_path):
    folder = hf_folder.save(converted("tiny-rnnt")[0], tmp_path / "own")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    assert found in refusal(folder).found


def test_a_folder_with_both_is_its_nemo_file(copied):
    folder = copied("streaming-en")
    shutil.copy(CHECKPOINTS / "streaming-en.nemo", folder / "model.nemo")
    assert read_checkpoint(str(folder)).path == folder / "model.nemo"
    (folder / "other.nemo").write_bytes(b"")
    assert read_checkpoint(str(folder)).path == folder


def test_a_model_of_the_hub_has_its_needed_files_and_its_name(converted, monkeypatch):
    import huggingface_hub

    _, folder = converted("tiny-rnnt")
    files = ["README.md", "config.json", "tokenizer.json", "processor_config.json", "model.safetensors", "pytorch_model.bin"]
    asked = []

    class Hub:
        def list_repo_files(self, repo, revision=None):
            return files

    def download(repo, *, revision, allow_patterns):
        asked.append((repo, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = read_checkpoint("org/some-model@abc")
    needed = ["config.json", "tokenizer.json", "processor_config.json", "model.safetensors"]
    assert asked == [("org/some-model", "abc", needed)]
    assert found.name == "some-model" and found.base_model == "org/some-model@abc"
    files += ["x/model-1.safetensors", "a.nemo", "b.nemo"]  # several: none is the one
    assert resolve("org/some-model") == (folder, "org/some-model")
    shards = ["model-1-of-2.safetensors", "model-2-of-2.safetensors", "model.safetensors.index.json"]
    files[:] = [name for name in files if name != "model.safetensors"] + shards
    resolve("org/some-model")
    assert asked[-1][2] == [*needed[:3], *shards]


def test_a_build_has_the_folders_name(converted, monkeypatch):
    from nemoport.pipeline.plan import make_plan

    _, folder = converted("streaming-en")
    monkeypatch.chdir(folder)
    assert make_plan(".").build == Path("build", "streaming-en")
