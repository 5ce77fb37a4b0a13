"""The layout parakeet-rs: a contract test. The crate cannot be run here, so what it reads and feeds is replayed with onnxruntime,
as its model_nemotron.rs and nemotron.rs have it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import consumers
import numpy as np
import pytest
import samples
import soundfile

from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.events import EventSpec
from nemoport.export.sentencepiece_model import read_model
from nemoport.package.layouts import parakeet_rs
from nemoport.prompt import PromptSpec
from nemoport.runtimes import open_session
from nemoport.spec import ModelSpec
from nemoport.tokens import Pieces, SpellingRule

CLIPS = sorted((Path(__file__).parent.parent / "reference/audio/eval").glob("*.flac"))[:2]
STREAMING = ModelSpec.from_dict(samples.SPEC)
STREAMING = replace(STREAMING, decoding=replace(STREAMING.decoding, pred_hidden=640))
PIECES = Pieces(["<unk>", "\u2581a"], SpellingRule())


@pytest.fixture(scope="module")
def package(build, tmp_path_factory):
    """The committed model has other states than the crate: they are taken for its own here."""
    folder = tmp_path_factory.mktemp("parakeet-rs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parakeet_rs, "STATES", (2, 160))
        parakeet_rs.lay_out(build, ["fp32"], folder)
    return folder


def replay(folder: Path, spec: ModelSpec, mel: np.ndarray, prompt: int | None = None) -> list[int]:
    encoder, decoder = (consumers.opened(folder / name) for name in ("encoder.onnx", "decoder_joint.onnx"))
    blank = len(read_model((folder / "tokenizer.model").read_bytes()).pieces)
    inputs = {one.name: one.shape for one in encoder.get_inputs()}
    assert ("prompt_index" in inputs) == (prompt is not None)
    metadata = encoder.get_modelmeta().custom_metadata_map
    chunk, before = int(metadata["chunk_size_output_frames"]), int(metadata["pre_encode_cache"])
    caches = {name: np.zeros(inputs[name], np.float32) for name in ("cache_last_channel", "cache_last_time")}  # sizes are fixed
    layers, left, width = (inputs["cache_last_channel"][i] for i in (0, 2, 3))
    assert [array.shape for array in caches.values()] == [(layers, 1, left, width), (layers, 1, width, 8)]
    caches["cache_last_channel_len"] = np.zeros(1, np.int64)
    zeros = np.zeros((spec.decoding.pred_layers, 1, spec.decoding.pred_hidden), np.float32)
    state, tokens = [blank, (zeros, zeros)], []

    def step(frame, token, states):
        feeds = {
            "encoder_outputs": frame,
            "targets": np.array([[token]], np.int32),
            "target_length": np.ones(1, np.int32),
            "input_states_1": states[0],
            "input_states_2": states[1],
        }
        out = consumers.named(decoder, feeds)
        return out["outputs"].ravel(), (out["output_states_1"], out["output_states_2"])

    assert before == spec.streaming.pre_encode_cache_mel_frames
    for window in consumers.windows(spec, chunk - 1, mel):
        feeds = {"processed_signal": window, "processed_signal_length": np.array([before + 8 * chunk]), **caches}
        if prompt is not None:
            feeds["prompt_index"] = np.array([prompt])
        out = consumers.named(encoder, feeds)
        caches = {name: out[f"{name}_next"] for name in caches}
        frames = (np.ascontiguousarray(out["encoded"][:, :, [t]]) for t in range(int(out["encoded_len"][0])))
        tokens += consumers.decode(step, frames, state, blank, 10)
    return tokens


def test_fed_as_parakeet_rs_feeds_the_graphs_say_what_nemoport_says(package, build):
    artifact = Artifact.open(build / "fp32")
    session, spec = open_session(artifact, threads=1), artifact.spec
    for path in CLIPS:
        mel = consumers.log_mel(spec, soundfile.read(path, dtype="float32")[0])
        found = replay(package / "fp32", spec, mel)
        windows = list(consumers.windows(spec, 6, mel))
        assert found and found == consumers.own_tokens(session, spec, windows)
    assert found == consumers.own_tokens(parakeet_rs.open_variant(package, "fp32", spec), spec, windows)
    assert (package / "fp32/encoder.onnx.data").read_bytes() == (build / "fp32/encoder_model.onnx.data").read_bytes()
    assert {path.name for path in (package / "fp32").iterdir()} == {
        "encoder.onnx", "encoder.onnx.data", "decoder_joint.onnx", "tokenizer.model",
    }  # fmt: skip


def test_what_parakeet_rs_cannot_run_is_named(build, tmp_path):
    def found(spec, pieces=PIECES):
        return "; ".join(parakeet_rs.problems(spec, pieces))

    decoding, prompt = STREAMING.decoding, PromptSpec(128, {"auto": 101})
    assert not found(STREAMING) and not found(replace(STREAMING, prompt=prompt))
    assert "streaming-ctc" in found(replace(STREAMING, kind="streaming-ctc"))
    assert "offline-rnnt" in found(ModelSpec.from_dict(samples.OFFLINE_SPEC))
    assert "n_mels 80, where it has 128" in found(replace(STREAMING, frontend=replace(STREAMING.frontend, n_mels=80)))
    assert "states of 1 x 640" in found(replace(STREAMING, decoding=replace(decoding, pred_layers=1)))
    assert "5 tokens on a frame" in found(replace(STREAMING, decoding=replace(decoding, max_symbols_per_frame=5)))
    assert "falls silent" in found(replace(STREAMING, events=EventSpec(end_of_utterance=0)))
    assert "auto is not slot 101" in found(replace(STREAMING, prompt=PromptSpec(128, {"auto": 3})))
    assert "single bytes" in found(STREAMING, Pieces(["<0xE3>"], SpellingRule()))
    with pytest.raises(UsageError, match="parakeet-rs cannot run this") as error:
        parakeet_rs.lay_out(build, ["kv-fp32"], tmp_path)
    assert error.value.found == "kv-fp32, whose caches it does not keep; states of 2 x 160, where it feeds 2 x 640"


def test_a_vocabulary_must_be_that_of_the_sentencepiece_model(build, tmp_path, monkeypatch):
    monkeypatch.setattr(parakeet_rs, "STATES", (2, 160))
    (tmp_path / "shared").mkdir()
    for name in ("config.json", "shared/tokens.txt"):
        (tmp_path / name).write_bytes((build / name).read_bytes())
    with pytest.raises(UsageError, match="SentencePiece"):
        parakeet_rs.lay_out(tmp_path, ["fp32"], tmp_path / "package")


def test_how_to_run_it_in_parakeet_rs():
    facts = SimpleNamespace(spec=STREAMING, config=samples.CONFIG, artifacts={"int8-static": None})
    text = parakeet_rs.usage(facts)
    assert 'from_pretrained("int8-static", None)?;\nlet mut audio = vec![0.0; 1120];' in text and "split_at(8960 + 160)" in text
    assert "Chunks of 7 encoder frames" in text and "flushes 560" not in text
    facts.spec = replace(STREAMING, prompt=PromptSpec(128, {"auto": 101}))
    facts.config = samples.CONFIG | {"encoder": samples.CONFIG["encoder"] | {"default_lookahead": 3}}
    text = parakeet_rs.usage(facts)
    assert "set_target_lang" in text and "Chunks of 4 encoder frames" in text and "voxtype flushes 560 ms" in text


@pytest.mark.slow
def test_a_model_of_its_size_and_a_prompted_one(random_checkpoint, tmp_path, monkeypatch):
    from nemoport.export.build import export_checkpoint
    from nemoport.export.checkpoint import read_checkpoint

    for preset in ("wide-streaming", "tiny-multilingual"):
        folder = tmp_path / preset
        folder.mkdir()
        export_checkpoint(read_checkpoint(str(random_checkpoint(preset))), tmp_path / f"{preset}-build")
        artifact = Artifact.open(tmp_path / f"{preset}-build/fp32")
        session, spec = open_session(artifact, threads=1), artifact.spec
        if spec.prompt:
            monkeypatch.setattr(parakeet_rs, "STATES", (spec.decoding.pred_layers, spec.decoding.pred_hidden))
        parakeet_rs.lay_out(tmp_path / f"{preset}-build", ["fp32"], folder)
        prompts = [101] if spec.prompt else []
        mel = consumers.log_mel(spec, soundfile.read(CLIPS[1], dtype="float32")[0])
        lookahead = 3 if spec.prompt else 6
        wanted = consumers.own_tokens(session, spec, consumers.windows(spec, lookahead, mel), prompts)
        assert replay(folder / "fp32", spec, mel, *prompts) == wanted != []
