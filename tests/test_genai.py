"""The layout genai: what onnxruntime-genai reads, replayed with onnxruntime; and the real package, where it is installed.

`make genai` installs it beside the project, in an environment of its own; without it the tests that run it are skipped.
"""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import consumers
import numpy as np
import onnx
import pytest
import samples
import soundfile

from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.events import EventSpec
from nemoport.package.examples import example_text
from nemoport.package.layouts import genai
from nemoport.prompt import PromptSpec
from nemoport.runtimes import open_session
from nemoport.spec import ModelSpec
from nemoport.tokens import Pieces, SpellingRule

ROOT = Path(__file__).parent.parent
CLIPS = sorted((ROOT / "reference/audio/eval").glob("*.flac"))[:3]
WORKER = ROOT / "bench/peers/genai_transcribe.py"
PYTHON = Path(os.environ.get("NEMOPORT_GENAI", ROOT / "build/genai/venv")) / "bin/python"
needs_genai = pytest.mark.skipif(not PYTHON.is_file(), reason=f"onnxruntime-genai is not installed in {PYTHON.parent.parent}")
STREAMING, OFFLINE = ModelSpec.from_dict(samples.SPEC), ModelSpec.from_dict(samples.OFFLINE_SPEC)
TDT = replace(OFFLINE, kind="offline-tdt", decoding=replace(OFFLINE.decoding, durations=(0, 1, 2)))
TDT = replace(TDT, frontend=replace(OFFLINE.frontend, normalize="per_feature"))
PIECES = Pieces(["<unk>", "\u2581a", "b"], SpellingRule())
# Of onnxruntime-genai 0.18: another key is an error to it.
MODEL_KEYS = {
    "type", "vocab_size", "context_length", "blank_id", "eos_token_id", "bos_token_id", "pad_token_id", "max_symbols_per_step",
    "sample_rate", "num_mels", "fft_size", "win_length", "hop_length", "preemph", "log_eps", "subsampling_factor", "encoder",
    "decoder", "joiner",
}  # fmt: skip
STREAMING_KEYS = MODEL_KEYS | {"left_context", "conv_context", "pre_encode_cache_size", "chunk_samples"}
TDT_KEYS = MODEL_KEYS | {"tdt_durations", "norm_eps", "chunk_samples", "left_context_samples", "right_context_samples"}


@pytest.fixture(scope="module")
def package(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("genai")
    genai.lay_out(build, ["fp32"], folder)
    return folder


class Replay:
    """Runs a folder by the names and sizes of its genai_config.json, as onnxruntime-genai's nemotron_speech.cpp does."""

    def __init__(self, folder: Path):
        self.settings = json.loads((folder / "genai_config.json").read_text())["model"]
        assert self.settings["type"] == "nemotron_speech"
        parts = ("encoder", "decoder", "joiner")
        self.graphs = {part: consumers.opened(folder / self.settings[part]["filename"]) for part in parts}

    def run(self, part: str, **feeds: np.ndarray) -> dict[str, np.ndarray]:
        names = self.settings[part]
        found = consumers.named(self.graphs[part], {names["inputs"][key]: values for key, values in feeds.items()})
        return {key: found[name] for key, name in names["outputs"].items()}

    def float_types(self) -> set[str]:
        values = [one for graph in self.graphs.values() for one in (*graph.get_inputs(), *graph.get_outputs())]
        return {one.type for one in values if one.type != "tensor(int64)"}

    def tokens(self, rows, language=None) -> list[int]:
        """rows: f32 [1, 9 + chunk, bands] of each chunk"""
        s, encoder = self.settings, self.settings["encoder"]
        layers, width = encoder["num_hidden_layers"], encoder["hidden_size"]
        caches = {
            "cache_last_channel": np.zeros((1, layers, s["left_context"], width), np.float32),
            "cache_last_time": np.zeros((1, layers, width, s["conv_context"]), np.float32),
            "cache_last_channel_len": np.zeros(1, np.int64),
        }
        zeros = np.zeros((s["decoder"]["num_hidden_layers"], 1, s["decoder"]["hidden_size"]), np.float32)
        state, tokens = [s["blank_id"], (zeros, zeros)], []
        for row in rows:
            extra = {} if language is None else {"lang_id": np.array([language])}
            length = np.array([row.shape[1]])
            out = self.run("encoder", audio_features=row, input_lengths=length, **caches, **extra)
            caches = {key: out[f"{key}_next"] for key in caches}
            frames = out["encoder_outputs"][0][: int(out["output_lengths"][0])]
            tokens += consumers.decode(self.step, frames, state, s["blank_id"], s["max_symbols_per_step"])
        return tokens

    def step(self, frame, token, states):
        hidden, cell = states
        targets = np.array([[token]], np.int64)
        out = self.run("decoder", targets=targets, lstm_hidden_state=hidden, lstm_cell_state=cell)
        prediction = out["outputs"].reshape(1, 1, -1)
        scores = self.run("joiner", encoder_outputs=frame[None, None], decoder_outputs=prediction)["logits"]
        assert scores.size == self.settings["vocab_size"]
        return scores, (out["lstm_hidden_state"], out["lstm_cell_state"])


def rows_of(spec, lookahead, audio):
    mel = consumers.log_mel(spec, audio)
    return [window.transpose(0, 2, 1) for window in consumers.windows(spec, lookahead, mel)]


def test_fed_as_genai_feeds_the_graphs_say_what_nemoport_says(package, build):
    replay, artifact = Replay(package / "fp32"), Artifact.open(build / "fp32")
    session, spec = open_session(artifact, threads=1), artifact.spec
    assert replay.float_types() == {"tensor(float)"} and replay.settings.keys() == STREAMING_KEYS
    for lookahead in (6, 1):
        assert genai.chunk_samples(spec, lookahead) == 1280 * (lookahead + 1)
        for path in CLIPS[:2]:
            rows = rows_of(spec, lookahead, soundfile.read(path, dtype="float32")[0])
            found = replay.tokens(rows)
            assert found and found == consumers.own_tokens(session, spec, (row.transpose(0, 2, 1) for row in rows))
    assert replay.settings["chunk_samples"] == 8960


def test_the_weights_of_the_encoder_are_those_of_the_build(package, build):
    assert (package / "fp32/encoder.onnx.data").read_bytes() == (build / "fp32/encoder_model.onnx.data").read_bytes()
    for path in genai.graphs(package, "fp32"):
        onnx.checker.check_model(str(path), full_check=True)


def test_nemoport_runs_the_package(package, build):
    spec = Artifact.open(build / "fp32").spec
    rows = rows_of(spec, 6, soundfile.read(CLIPS[0], dtype="float32")[0])
    found = consumers.own_tokens(genai.open_variant(package, "fp32", spec), spec, (row.transpose(0, 2, 1) for row in rows))
    assert found == Replay(package / "fp32").tokens(rows)


def test_what_genai_reads_of_an_offline_model():
    config = samples.CONFIG | {"spec": TDT.to_dict(), "encoder": {"input_rule": ""}}
    model = genai.genai_config(TDT, config)["model"]
    assert model.keys() == TDT_KEYS and model["type"] == "parakeet_tdt" and model["tdt_durations"] == [0, 1, 2]
    assert model["blank_id"] in model["eos_token_id"] and model["vocab_size"] == TDT.decoding.vocab_size + 1
    assert model["chunk_samples"] % (TDT.frontend.hop_samples * TDT.encoder.subsampling_factor) == 0
    assert model["decoder"]["inputs"].keys() == {"targets", "targets_length", "lstm_hidden_state", "lstm_cell_state"}
    assert model["decoder"]["outputs"].keys() == {"outputs", "outputs_length", "lstm_hidden_state", "lstm_cell_state"}
    assert model["encoder"]["inputs"].keys() == {"audio_features", "input_lengths"}


def test_a_language_is_an_input_of_prompted_models_alone():
    prompted = replace(STREAMING, prompt=PromptSpec(4, {"de": 1, "auto": 3}))
    inputs = [genai.sides(spec)["encoder"][0].get("prompt_index") for spec in (STREAMING, prompted)]
    assert inputs[0] is None and inputs[1].name == "lang_id" and not inputs[1].dtype


def test_the_tokenizer_spells_ids_and_leaves_tags_out():
    pieces = Pieces(["<unk>", "\u2581a", "<de-DE>", "<s>"], SpellingRule(silent=(3,)))
    files = genai.tokenizer_files(pieces)
    made = files["tokenizer.json"]
    assert [piece for piece, _ in made["model"]["vocab"]] == [*pieces, "<blank>"]
    assert [(one["id"], one["content"], one["special"]) for one in made["added_tokens"]] == [
        (2, "<de-DE>", True),
        (3, "<s>", True),
    ]
    assert files["tokenizer_config.json"]["tokenizer_class"] == "T5Tokenizer"


def test_how_to_run_it_in_genai():
    facts = SimpleNamespace(spec=STREAMING, artifacts={"int8-static": None}, lookaheads=[0, 6])
    text = genai.usage(facts)
    assert "as `python example.py int8-static recording.wav`:" in text and example_text("genai_streaming") in text
    assert "1280 (lookahead 0), 8960 (lookahead 6)" in text and "lang_id`" not in text.partition("```\n\n")[2]
    facts.spec = replace(STREAMING, prompt=PromptSpec(4, {"de": 1, "auto": 3}))
    text = genai.usage(facts)
    assert "recording.wav auto`:" in text and "Without `lang_id` it feeds slot 0" in text
    text = genai.usage(SimpleNamespace(spec=TDT, artifacts={"fp32": None}))
    assert example_text("genai_offline") in text and "up to 240 s" in text and "chunk_samples" not in text


def test_what_genai_cannot_run_is_named(build, tmp_path):
    def found(spec, pieces=PIECES):
        return "; ".join(genai.problems(spec, pieces))

    assert not found(STREAMING) and not found(TDT)
    assert "offline-rnnt" in found(OFFLINE) and "streaming-ctc" in found(replace(STREAMING, kind="streaming-ctc"))
    assert "n_mels 64" in found(replace(STREAMING, frontend=replace(STREAMING.frontend, n_mels=64)))
    assert "normalize NA" in found(replace(TDT, frontend=replace(TDT.frontend, normalize="NA")))
    assert "falls silent" in found(replace(STREAMING, events=EventSpec(end_of_utterance=0)))
    assert "as wide" in found(replace(TDT, decoding=replace(TDT.decoding, joint_hidden=1)))
    assert "look like a byte" in found(STREAMING, Pieces(["<0x20>"], SpellingRule(plain=(0,))))
    assert "named <blank>" in found(STREAMING, Pieces(["<blank>"], SpellingRule()))
    with pytest.raises(UsageError, match="onnxruntime-genai cannot run this") as error:
        genai.lay_out(build, ["kv-fp32", "int8-smoothquant-signed"], tmp_path)
    assert "TensorRT" in error.value.found and "kv-fp32, whose caches it does not keep" in error.value.found


# --- the real package


def transcribed(folder: Path, paths, rows: Path, language="") -> list[dict]:
    command = [PYTHON, WORKER, folder, "--rows", rows, "--language", str(language)]
    done = subprocess.run(command, input="".join(f"{path}\n" for path in paths), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_genai
@pytest.mark.slow
def test_the_real_package_says_what_nemoport_says_of_its_rows(package, build, tmp_path):
    from nemoport.recognizer import Recognizer

    answers = transcribed(package / "fp32", CLIPS, tmp_path)
    ours = Recognizer.open(build / "fp32", threads=1)
    for number, answer in enumerate(answers):
        rows = np.load(tmp_path / f"{number}.npy")
        windows = (np.ascontiguousarray(row.T[None]) for row in rows)
        assert answer["tokens"] == consumers.own_tokens(ours.session, ours.session.spec, windows)
        assert answer["text"].strip() == ours.text(answer["tokens"]).strip() != ""


@needs_genai
@pytest.mark.slow
def test_the_real_package_runs_an_offline_model_and_a_prompted_one(random_checkpoint, tmp_path):
    from nemoport.export.build import export_checkpoint
    from nemoport.export.checkpoint import read_checkpoint

    cases = [
        (ROOT / "reference/checkpoints/offline-tdt.nemo", "eval-tdt", ""),
        (random_checkpoint("tiny-multilingual"), "eval-multi", 1),
    ]
    for checkpoint, audio, language in cases:
        build, folder, rows = (tmp_path / f"{audio}-{part}" for part in ("build", "package", "rows"))
        folder.mkdir(), rows.mkdir()
        export_checkpoint(read_checkpoint(str(checkpoint)), build)
        genai.lay_out(build, ["fp32"], folder)
        artifact = Artifact.open(build / "fp32")
        session, spec = open_session(artifact, threads=1), artifact.spec
        clips = sorted((ROOT / "reference/audio" / audio).glob("*.flac"))[:3]
        for number, answer in enumerate(transcribed(folder / "fp32", clips, rows, language)):
            found = np.load(rows / f"{number}.npy")
            inputs = [np.ascontiguousarray(row.T[None]) for row in found] if spec.streaming else [found]
            wanted = consumers.own_tokens(session, spec, inputs, [language] if spec.prompt else [])
            assert answer["tokens"] == wanted and wanted
