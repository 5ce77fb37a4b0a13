"""Anybody's folder: graphs are known by their interfaces, run behind NeMo's names, and hostile files are refused."""

import json
import os
import shutil
from pathlib import Path

import foreign_graphs as graphs
import onnx
import pytest
from onnx import TensorProto

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError
from nemoport.export.split import split_decoder
from nemoport.foreign import listing
from nemoport.foreign.folder import read_folder
from nemoport.foreign.listing import File
from nemoport.foreign.session import open_session
from nemoport.foreign.vocabulary import read_vocabulary
from nemoport.frontend import mel_filterbank
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.stream import Stream, advance

LOOKAHEAD = 6


def tokens(session, samples, lookahead=LOOKAHEAD, streams=1):
    all_ = [Stream(session, mel_filterbank(session.spec.frontend), lookahead) for _ in range(streams)]
    for stream in all_:
        stream.push(samples)
        stream.close()
    while running := [stream for stream in all_ if stream.chunks]:
        advance(session, running)
    return [list(stream.tokens) for stream in all_]


@pytest.fixture(scope="module")
def samples(eval_corpus):
    return eval_corpus.utterances[0].samples()


@pytest.fixture(scope="module")
def ours(build, samples):
    artifact = Artifact.open(build / "fp32")
    return tokens(OnnxSession.open(artifact, threads=1), samples)[0]


def genai(build, folder):
    """Time-major, split, i64 targets, one stream and one frame; the names of published folders."""
    encoder = graphs.load(build / "fp32" / "encoder_model.onnx")
    graphs.time_major(encoder)
    graphs.fixed(encoder, {"audio_signal": {0: 1}, "cache_last_channel": {0: 1}, "cache_last_time": {0: 1}})
    graphs.renamed(encoder, {"audio_signal": "audio_features", "outputs": "encoder_outputs"})
    graphs.write(encoder, folder / "encoder.onnx")
    split = split_decoder(graphs.load(build / "fp32" / "decoder_model.onnx"))
    graphs.typed(split.predictor, "targets", TensorProto.INT64)
    graphs.renamed(split.predictor, {"input_states_1": "h_in", "input_states_2": "c_in", "outputs": "decoder_output"})
    graphs.write(split.predictor, folder / "decoder.onnx")
    graphs.permuted(split.joiner, "encoder_outputs", [0, 2, 1])
    graphs.permuted(split.joiner, "decoder_outputs", [0, 2, 1])
    graphs.fixed(split.joiner, {"encoder_outputs": {0: 1, 1: 1}, "decoder_outputs": {1: 1}})
    graphs.write(split.joiner, folder / "joint.onnx")


def parakeet_rs(build, folder):
    """Layer-first caches, its names, one frame a run."""
    encoder = graphs.load(build / "fp32" / "encoder_model.onnx")
    graphs.layer_first(encoder)
    names = {"audio_signal": "processed_signal", "length": "processed_signal_length", "outputs": "encoded"}
    graphs.renamed(
        encoder, {**names, "encoded_lengths": "encoded_len", "cache_last_channel_next_len": "cache_last_channel_len_next"}
    )
    graphs.write(encoder, folder / "encoder.onnx")
    decoder = graphs.load(build / "fp32" / "decoder_model.onnx")
    graphs.fixed(decoder, {"encoder_outputs": {2: 1}})
    graphs.write(decoder, folder / "decoder_joint.onnx")


def i32_lengths(build, folder):
    """Layer-first caches, i32 lengths and time-major frames, as speech-core has them."""
    encoder = graphs.load(build / "fp32" / "encoder_model.onnx")
    graphs.layer_first(encoder)
    graphs.i32_lengths(encoder)
    graphs.permuted(encoder, "outputs", [0, 2, 1])
    graphs.renamed(encoder, {"length": "audio_length", "outputs": "encoded_output", "encoded_lengths": "encoded_length"})
    graphs.write(encoder, folder / "encoder.onnx")
    shutil.copy(build / "fp32" / "decoder_model.onnx", folder / "decoder.onnx")
    shutil.copy(build / "fp32" / "decoder_model.onnx.data", folder / "decoder_model.onnx.data")


def sizes_unstated(build, folder):
    """As NeMo's own export leaves them."""
    encoder = graphs.load(build / "fp32" / "encoder_model.onnx")
    for end in ("", "_next"):
        graphs.fixed(encoder, {f"cache_last_channel{end}": {2: None}, f"cache_last_time{end}": {3: None}})
    graphs.write(encoder, folder / "encoder-x.onnx")
    shutil.copy(build / "fp32" / "decoder_model.onnx", folder / "decoder_joint-x.onnx")
    shutil.copy(build / "fp32" / "decoder_model.onnx.data", folder / "decoder_model.onnx.data")


def no_count(build, folder):
    """Without the number of frames: all of them count."""
    encoder = graphs.load(build / "fp32" / "encoder_model.onnx")
    encoder.graph.output.remove(next(value for value in encoder.graph.output if value.name == "encoded_lengths"))
    graphs.write(encoder, folder / "encoder.onnx")
    native(build, folder / "x")
    for path in (folder / "x").glob("decoder_model*"):
        path.rename(folder / path.name)
    shutil.rmtree(folder / "x")


def native(build, folder):
    shutil.copytree(build / "fp32", folder, dirs_exist_ok=True)


@pytest.mark.parametrize("made", [native, genai, parakeet_rs, i32_lengths, sizes_unstated], ids=lambda made: made.__name__)
def test_it_runs_behind_nemos_names(made, build, samples, ours, tmp_path):
    made(build, tmp_path)
    folder = read_folder(tmp_path)
    session = open_session(folder.models[0], folder)
    assert session.spec.lookaheads == (13, 6, 1, 0) and session.spec.require_streaming().left_context_enc_frames == 70
    assert tokens(session, samples, streams=2) == [ours, ours] and len(ours) > 5


def test_a_graph_of_fixed_windows_gets_zeros_before_its_first_one(build, samples, tmp_path):
    shutil.copytree(build / "fp32", tmp_path, dirs_exist_ok=True)
    encoder = graphs.load(tmp_path / "encoder_model.onnx")
    graphs.fixed(encoder, {"audio_signal": {2: 65}})
    graphs.write(encoder, tmp_path / "encoder_model.onnx")
    folder = read_folder(tmp_path)
    session = open_session(folder.models[0], folder)
    assert session.spec.lookaheads == (6,) and session.encoder.left_mel_frames == 16
    assert tokens(session, samples)[0]


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("tokens.txt", "a 0\n▁b 1\n<blk> 2\n", ["a", "▁b", "<blk>"]),
        ("vocab.txt", "a\nb c\n", ["a", "b c"]),
        ("vocab.json", json.dumps({"0": "a", "1": "b"}), ["a", "b"]),
        ("vocab.json", json.dumps({"b": 1, "a": 0}), ["a", "b"]),
        ("tokenizer.json", json.dumps({"model": {"vocab": [["a", 0.0], ["b", -1.0]]}, "added_tokens": []}), ["a", "b"]),
        (
            "tokenizer.json",
            json.dumps({"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "<blk>"}]}),
            ["a", "<blk>"],
        ),
    ],
)
def test_vocabularies_of_every_form(name, text, pieces, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert list(read_vocabulary(File(name, tmp_path / name)).pieces) == pieces


def test_a_sentencepiece_model_has_the_pieces_of_tokens_txt(build):
    found = {v.form: v.pieces for v in read_folder(build).vocabularies}
    assert found["SentencePiece"] == found["lines"] and len(found["lines"]) == 96


@pytest.mark.parametrize("text", ["[1, 2]", '{"0": 1}', '{"a": 99999999999}', '{"model": 1}', "[" * 5000, ""])
def test_what_is_no_vocabulary_is_refused(text, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match="no vocabulary"):
        read_vocabulary(File(path.name, path))


def test_hostile_folders(tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="no folder"):
        read_folder(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="no folder"):
        read_folder(tmp_path / "file")
    with pytest.raises(ArtifactError, match="no ONNX graph"):
        read_folder(tmp_path)
    monkeypatch.setattr(listing, "MOST_FILES", 3)
    for i in range(4):
        (tmp_path / f"{i}.txt").write_text("")
    with pytest.raises(ArtifactError, match="more than 3 files"):
        read_folder(tmp_path)


def test_links_pipes_and_pointers_are_not_read(tmp_path):
    folder, outside = tmp_path / "package", tmp_path / "outside.onnx"
    folder.mkdir()
    outside.write_bytes(b"x")
    (folder / "link.onnx").symlink_to(outside)
    (folder / "gone.onnx").symlink_to(folder / "nothing")
    (folder / "loop.onnx").symlink_to(folder / "loop.onnx")
    os.mkfifo(folder / "pipe.onnx")
    (folder / "encoder.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (folder / "noise.onnx").write_bytes(bytes(range(256)) * 4)
    (folder / "config.json").write_text("[")
    broken = read_folder(folder).broken
    assert "outside" in broken["link.onnx"] and "nothing" in broken["gone.onnx"] and "plain" in broken["pipe.onnx"]
    assert "git-lfs" in broken["encoder.onnx"] and broken["noise.onnx"] and broken["config.json"] and broken["loop.onnx"]


def test_links_of_the_hubs_cache_are_followed(build, tmp_path):
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, path in enumerate((build / "fp32").iterdir()):
        shutil.copy(path, blobs / str(i))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(i))
    folder = read_folder(snapshot)
    assert not folder.broken and "a link" in folder.models[0].encoder.graph.damage


def test_a_graph_of_no_recogniser_is_other(tmp_path):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "vad.onnx")
    folder = read_folder(tmp_path)
    assert not folder.models and folder.others[0].ports.role == "other"


def test_a_graph_without_a_count_of_frames(build, samples, ours, tmp_path):
    """All of its frames count, those of the padding behind the end too."""
    no_count(build, tmp_path)
    folder = read_folder(tmp_path)
    (found,) = tokens(open_session(folder.models[0], folder), samples)
    assert found[: len(ours) - 1] == ours[:-1]
