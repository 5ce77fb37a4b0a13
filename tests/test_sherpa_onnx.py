"""The layout sherpa-onnx, run by the real package; the decoder graph that is cut into predictor and joiner for it."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import sherpa_onnx
import soundfile
from onnx import helper, numpy_helper
from quantizing import FOR_OFFLINE, short_manifest

from nemoport.artifact import Artifact
from nemoport.decode import GreedyState, greedy
from nemoport.errors import ArtifactError, UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.split import split_decoder
from nemoport.package.assemble import package
from nemoport.package.layouts import sherpa_onnx as layout
from nemoport.package.manifest import PackageManifest, hash_files
from nemoport.package.verify import verify
from nemoport.prompt import PromptSpec
from nemoport.quantize import build_variant
from nemoport.recognizer import Recognizer
from nemoport.runtimes.onnxruntime.session import open_graph
from nemoport.spec import DecodingSpec, FrontendSpec, ModelSpec, OfflineSpec
from nemoport.speech.corpus import read_corpus
from nemoport.validate.gate_result import GateResult, artifact_sha256

ROOT = Path(__file__).parent.parent
AUDIO = ROOT / "reference" / "audio"
VARIANTS = ("fp32", "fp16", "int8-weight")  # the three kinds of decoder: f32, computed in f16, weights kept in f16
RATE = 16000


def made(checkpoint: Path, build: Path, speech: str, variants=VARIANTS) -> Path:
    export_checkpoint(read_checkpoint(str(checkpoint)), build)
    for variant in variants[1:]:
        build_variant(build, variant, short_manifest(build, count=FOR_OFFLINE, speech=speech), progress=lambda line: None)
    return build


@pytest.fixture(scope="module")
def streaming(tmp_path_factory):
    folder = tmp_path_factory.mktemp("builds")
    return made(ROOT / "reference/checkpoints/streaming-en.nemo", folder / "streaming-en", "")


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("builds")
    return made(ROOT / "reference/checkpoints/offline-tdt.nemo", folder / "offline-tdt", "-tdt")


def packed(build: Path, dist: Path, variants=None) -> Path:
    for variant in variants or VARIANTS:
        result = GateResult("contract", variant, artifact_sha256(build / variant), "pass", "", 0.0, None, "problems", 77)
        path = build / "results" / f"{variant}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result.to_dict()) + "\n")
    return package(build, dist, variants, licence="apache-2.0", layout="sherpa-onnx", required_passes=lambda b, v: [])


@pytest.fixture(scope="module")
def streaming_package(streaming, tmp_path_factory):
    return packed(streaming, tmp_path_factory.mktemp("dist") / "streaming-en")


@pytest.fixture(scope="module")
def offline_package(offline, tmp_path_factory):
    return packed(offline, tmp_path_factory.mktemp("dist") / "offline-tdt")


@pytest.fixture(scope="module")
def utterances():
    return [u.samples() for u in sorted(read_corpus(AUDIO / "eval.jsonl", RATE).utterances, key=lambda u: u.seconds)[::5]]


@pytest.fixture(scope="module")
def french_and_english():
    return [u.samples() for u in read_corpus(AUDIO / "eval-tdt.jsonl", RATE).utterances[::22]]


def files(folder: Path, variant: str) -> dict[str, str]:
    parts = zip(("encoder", "decoder", "joiner"), layout.graphs(folder, variant), strict=True)
    return {"tokens": str(folder / "tokens.txt"), **{part: str(path) for part, path in parts}}


def online(folder: Path, variant: str = "fp32"):
    return sherpa_onnx.OnlineRecognizer.from_transducer(**files(folder, variant), num_threads=1)


def silence(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    rules = json.loads((folder / "config.json").read_text())["sherpa_onnx"]
    return np.zeros(rules["lead_samples"], np.float32), np.zeros(rules["tail_samples"], np.float32)


def hear(recognizer, samples: np.ndarray, packet: int = 0, language: str = "") -> str:
    stream = recognizer.create_stream()
    if language:
        stream.set_option("language", language)
    for start in range(0, len(samples), packet or len(samples)):
        stream.accept_waveform(RATE, samples[start : start + (packet or len(samples))])
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
    stream.input_finished()
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    return recognizer.get_result(stream).strip()


def hear_offline(folder: Path, variant: str, samples: np.ndarray, **replaced):
    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        **(files(folder, variant) | replaced), num_threads=1, model_type="nemo_transducer"
    )
    stream = recognizer.create_stream()
    stream.accept_waveform(RATE, samples)
    recognizer.decode_stream(stream)
    return stream.result


def text_of_windows(ours: Recognizer, recognizer, samples: np.ndarray, prompts=()) -> str:
    """What nemoport's own session and loop make of sherpa-onnx's features, cut as sherpa-onnx cuts them."""
    stream = recognizer.create_stream()
    stream.accept_waveform(RATE, samples)
    stream.input_finished()
    count = (len(samples) + 80) // 160
    mel = np.array(stream.get_frames(0, count), np.float32).reshape(count, -1).T
    spec, lookahead = ours.session.spec.streaming, ours.lookahead
    size, shift = spec.window_mel_frames(lookahead, first=False), spec.chunk_mel_frames(lookahead, first=False)
    state, decoded = ours.session.initial_state(1, prompts), [GreedyState.initial(ours.session.spec.decoding)]
    for start in range(0, count - size, shift):
        window = np.ascontiguousarray(mel[None, :, start : start + size])
        frames, lengths, state = ours.session.encode(window, np.array([size]), state)
        greedy(ours.session, frames, lengths, decoded)
    return ours.text(decoded[0].tokens).strip()


def own_text(ours: Recognizer, samples: np.ndarray) -> str:
    return next(ours.transcribe([("", samples)])).text.strip()


# --- the cut


def run(model, feeds: dict) -> dict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["streaming", "offline"])
def test_the_parts_are_the_whole(kind, variant, request):
    """To the bit, for several streams, frames and tokens at once; every weight stands in one part and in one only."""
    artifact = Artifact.open(request.getfixturevalue(kind) / variant)
    whole, spec = onnx.load(artifact.decoder), artifact.spec
    before = whole.SerializeToString()
    parts = split_decoder(whole)
    assert whole.SerializeToString() == before
    for part in (parts.predictor, parts.joiner):
        onnx.checker.check_model(part, full_check=True)
        assert {p.key: p.value for p in part.metadata_props} == {p.key: p.value for p in whole.metadata_props}
    names = [sorted(i.name for i in model.graph.initializer) for model in (parts.predictor, parts.joiner, whole)]
    assert sorted(names[0] + names[1]) == names[2]
    rng = np.random.default_rng(0)
    batch, frames, tokens = 3, 4, 2
    state = rng.standard_normal((2, *spec.decoding.state_shape(batch))).astype(np.float32)
    feeds = {
        "targets": rng.integers(0, spec.decoding.vocab_size, (batch, tokens)).astype(np.int32),
        "target_length": np.full(batch, tokens, np.int32),
        "input_states_1": state[0],
        "input_states_2": state[1],
    }
    encoded = {"encoder_outputs": rng.standard_normal((batch, spec.encoder.d_model, frames)).astype(np.float32)}
    wanted = run(whole, encoded | feeds)
    predicted = run(parts.predictor, feeds)
    joined = run(parts.joiner, encoded | {"decoder_outputs": predicted["outputs"]})
    assert predicted["outputs"].shape == (batch, spec.decoding.joint_hidden, tokens)
    assert joined["outputs"].shape == (batch, frames, tokens, spec.decoding.n_scores)
    for name, values in wanted.items():
        np.testing.assert_array_equal((joined if name == "outputs" else predicted)[name], values)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda graph: graph.input.pop(), "input_states_1 -> outputs"),
        (lambda graph: graph.output.pop(), "output_states_1$"),
        (lambda graph: graph.node.append(helper.make_node("Sum", ["outputs", "targets"], ["more"])), "they meet at .*, targets"),
        (lambda graph: graph.node.append(helper.make_node("Relu", ["outputs"], ["prednet_lengths"])), "behind the frames"),
    ],
    ids=["input", "output", "meeting twice", "states of frames"],
)
def test_what_cannot_be_cut(damage, named, streaming):
    model = onnx.load(streaming / "fp32" / "decoder_model.onnx")
    damage(model.graph)
    with pytest.raises(ArtifactError, match="cannot be split") as caught:
        split_decoder(model)
    assert re.search(named, caught.value.found)


# --- the package


def test_files_and_metadata(streaming_package, offline_package, streaming):
    for folder in (streaming_package, offline_package):
        names = {f"{part}{suffix}.onnx" for part in ("encoder", "decoder", "joiner") for suffix in ("", ".fp16", ".int8-weight")}
        beside = {"tokens.txt", "config.json", "README.md", "LICENSE", "manifest.json", "SHA256SUMS", "sbom.cdx.json"}
        assert {p.name for p in folder.iterdir()} == names | beside
        lines = (folder / "tokens.txt").read_text().splitlines()
        assert lines[-1] == f"<blk> {len(lines) - 1}"
    common = {"subsampling_factor": "8", "feat_dim": "128", "pred_rnn_layers": "2", "pred_hidden": "160"}
    read = metadata(streaming_package / "encoder.int8-weight.onnx")
    assert read.items() >= common.items() | {
        "window_size": "65", "chunk_shift": "56", "normalize_type": "", "vocab_size": "96",
        "cache_last_channel_dim1": "6", "cache_last_channel_dim2": "70", "cache_last_channel_dim3": "176",
        "cache_last_time_dim1": "6", "cache_last_time_dim2": "176", "cache_last_time_dim3": "8",
    }.items()  # fmt: skip
    assert "tdt" not in read["url"] and json.loads(read["nemoport.spec"]) == Artifact.open(streaming / "fp32").spec.to_dict()
    read = metadata(offline_package / "encoder.onnx")
    assert read.items() >= common.items() | {"normalize_type": "per_feature", "vocab_size": "128"}.items()
    assert "tdt" in read["url"] and "window_size" not in read


def metadata(graph: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(graph, load_external_data=False).metadata_props}


def test_verify(streaming_package, offline_package):
    for folder in (streaming_package, offline_package):
        assert len(verify(folder)) == 2 + len(VARIANTS)


def edit(graph: Path, change) -> None:
    model = onnx.load(graph)
    change(model)
    onnx.save(model, graph)


def with_metadata(key: str, value: str):
    def change(model):
        next(p for p in model.metadata_props if p.key == key).value = value

    return change


def shuffle_tokens(model) -> None:
    head = next(i for i in model.graph.initializer if i.name == "head.weight")
    head.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(head), 1, axis=1), head.name))


@pytest.mark.parametrize("how", ["left context", "scores", "cut", "missing"])
def test_verify_notices(how, streaming_package, tmp_path):
    folder = shutil.copytree(streaming_package, tmp_path / "dist")
    joiner = folder / "joiner.onnx"
    if how == "left context":
        edit(folder / "encoder.onnx", with_metadata("cache_last_channel_dim2", "56"))
    elif how == "scores":
        edit(joiner, shuffle_tokens)
    elif how == "cut":
        joiner.write_bytes(joiner.read_bytes()[:-1000])
    else:
        joiner.unlink()
    with pytest.raises(ArtifactError, match="encoder.onnx|joiner.onnx"):
        verify(folder)


def test_verify_runs_what_the_manifest_holds(streaming_package, tmp_path):
    """Files that are as recorded, and were packed wrong."""
    folder = shutil.copytree(streaming_package, tmp_path / "dist")
    shutil.copy(folder / "decoder.fp16.onnx", folder / "joiner.onnx")
    manifest = PackageManifest.read(folder)
    replace(manifest, files=hash_files(folder)).write(folder)
    with pytest.raises(ArtifactError, match="does not run"):
        verify(folder)


# --- streaming, in sherpa-onnx


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_hears_what_the_graphs_say(variant, streaming_package, streaming, utterances):
    """Its windows of its features: the same words as from nemoport's session on the fused graph, which its onnxruntime, an
    older one, may round otherwise. Beside NeMo's own windows of NeMo's own features the first frames and what follows the
    last one differ."""
    recognizer, ours = online(streaming_package, variant), Recognizer.open(streaming / variant, threads=1)
    lead, tail = silence(streaming_package)
    padded = [np.concatenate([lead, samples, tail]) for samples in utterances]
    transcribed = [hear(recognizer, samples) for samples in padded]
    emulated = [text_of_windows(ours, recognizer, samples) for samples in padded]
    same = sum(a == b for a, b in zip(transcribed, emulated, strict=True))
    assert same == len(transcribed) if variant == "fp32" else same >= len(transcribed) - 1
    wanted = [own_text(ours, samples) for samples in utterances]
    assert sum(a == b for a, b in zip(transcribed, wanted, strict=True)) >= 0.7 * len(transcribed)


def test_silence_around_the_audio(streaming_package, streaming, utterances):
    """What config.json tells to feed is needed: without it first words change and last ones are lost."""
    recognizer, ours = online(streaming_package), Recognizer.open(streaming / "fp32", threads=1)
    lead, tail = silence(streaming_package)
    assert (len(lead), len(tail)) == (16 * 160 + 80, 113 * 160)
    wanted = [own_text(ours, samples) for samples in utterances]

    def exact(before, after):
        transcribed = [hear(recognizer, np.concatenate([before, samples, after])) for samples in utterances]
        return sum(a == b for a, b in zip(transcribed, wanted, strict=True)), sum(map(len, transcribed))

    nothing, none = lead[:0], exact(lead[:0], tail[:0])
    both = exact(lead, tail)
    assert none[0] < exact(nothing, tail)[0] < both[0] and none[1] < 0.95 * both[1]
    assert exact(lead, nothing)[0] < both[0]


def test_another_lookahead_is_two_numbers(streaming_package, streaming, utterances, tmp_path):
    folder = shutil.copytree(streaming_package, tmp_path / "dist")
    edit(folder / "encoder.onnx", with_metadata("window_size", "25"))
    edit(folder / "encoder.onnx", with_metadata("chunk_shift", "16"))
    recognizer, ours = online(folder), Recognizer.open(streaming / "fp32", lookahead=1, threads=1)
    lead, tail = silence(folder)
    for samples in utterances[:5]:
        padded = np.concatenate([lead, samples, tail])
        assert hear(recognizer, padded) == text_of_windows(ours, recognizer, padded) != ""


def test_packets_and_batches(streaming_package, utterances):
    recognizer = online(streaming_package)
    lead, tail = silence(streaming_package)
    padded = [np.concatenate([lead, samples, tail]) for samples in utterances]
    transcribed = [hear(recognizer, samples) for samples in padded]
    assert [hear(recognizer, samples, packet=700) for samples in padded] == transcribed
    streams = [recognizer.create_stream() for _ in padded]
    for stream, samples in zip(streams, padded, strict=True):
        stream.accept_waveform(RATE, samples)
    while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
        recognizer.decode_streams(ready)
    assert [recognizer.get_result(stream).strip() for stream in streams] == transcribed


def in_a_process(folder: Path, recording: Path, suffix: str = "") -> subprocess.CompletedProcess:
    """By the example of the card: sherpa-onnx ends the process over a graph that it does not like."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("\n```")[0]
    return subprocess.run([sys.executable, "-c", code, str(folder), suffix, str(recording)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def recording(utterances, tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "a.wav"
    soundfile.write(path, utterances[-1], RATE, "FLOAT")
    return path


def test_the_example_of_the_card(streaming_package, offline_package, recording, utterances):
    lead, tail = silence(streaming_package)
    wanted = hear(online(streaming_package, "int8-weight"), np.concatenate([lead, utterances[-1], tail]))
    done = in_a_process(streaming_package, recording, ".int8-weight")
    assert done.stdout.strip() == wanted != "" and done.returncode == 0
    lead = np.zeros(80, np.float32)
    wanted = hear_offline(offline_package, "fp32", np.concatenate([lead, utterances[-1]])).text.strip()
    assert in_a_process(offline_package, recording).stdout.strip() == wanted != ""


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("encoder", with_metadata("cache_last_channel_dim2", "56")),
        ("encoder", with_metadata("chunk_shift", "65")),
        ("encoder", with_metadata("pred_hidden", "161")),
        ("encoder", with_metadata("vocab_size", "95")),
        ("joiner", shuffle_tokens),
    ],
    ids=["left context", "shift", "state", "vocabulary", "scores"],
)
def test_damage_shows_in_sherpa_onnx(file, change, streaming_package, recording, tmp_path):
    folder = shutil.copytree(streaming_package, tmp_path / "dist")
    good = in_a_process(folder, recording).stdout.strip()
    edit(folder / f"{file}.onnx", change)
    done = in_a_process(folder, recording)
    assert good and (done.returncode != 0 or done.stdout.strip() != good)


# --- offline, in sherpa-onnx


@pytest.mark.parametrize("variant", VARIANTS)
def test_offline_behind_the_same_features(variant, offline_package, offline, french_and_english, tmp_path):
    """Its greedy TDT gives nemoport's tokens and times where both have the same features, which here are built into the
    encoder: so all that differs without is its front end."""
    ours = Recognizer.open(offline / variant, threads=1)
    encoder = onnx.load(layout.graphs(offline_package, variant)[0])
    same = 0
    for samples in french_and_english:
        stream = ours.stream()
        stream.push(samples)
        stream.close()
        fed = onnx.ModelProto()
        fed.CopyFrom(encoder)
        features = {"audio_signal": stream.chunks[0].mel[None], "length": np.array([stream.chunks[0].length])}
        for value in fed.graph.input:
            fed.graph.initializer.append(numpy_helper.from_array(features[value.name], value.name))
            value.name = f"unused_{value.name}"
        onnx.save(fed, tmp_path / "encoder.onnx")
        transcribed = hear_offline(offline_package, variant, samples, encoder=str(tmp_path / "encoder.onnx"))
        wanted = next(ours.transcribe([("", samples)]))
        same += transcribed.text.strip() == wanted.text.strip() and np.allclose(
            transcribed.timestamps, wanted.token_seconds, atol=1e-4
        )
    assert same == len(french_and_english) if variant == "fp32" else same >= len(french_and_english) - 2


def test_offline_behind_its_own_features(offline_package, offline, french_and_english):
    """A Povey window and 7600 Hz: words change, most stay."""
    ours, lead = Recognizer.open(offline / "fp32", threads=1), np.zeros(80, np.float32)
    transcribed = [hear_offline(offline_package, "fp32", np.concatenate([lead, x])).text.split() for x in french_and_english]
    wanted = [own_text(ours, samples).split() for samples in french_and_english]
    kept = sum(len(set(a) & set(b)) for a, b in zip(transcribed, wanted, strict=True))
    assert kept > 0.6 * sum(len(set(b)) for b in wanted)


# --- a model that is told a language


def test_language(random_checkpoint, tmp_path):
    build = made(random_checkpoint("tiny-multilingual"), tmp_path / "build", "", ("fp32",))
    (tmp_path / "laid").mkdir()
    layout.lay_out(build, ["fp32"], tmp_path / "laid")
    recognizer = online(tmp_path / "laid")
    samples = read_corpus(AUDIO / "eval.jsonl", RATE).utterances[0].samples()
    padded = np.concatenate([silence(tmp_path / "laid")[0], samples, silence(tmp_path / "laid")[1]])
    transcribed = {}
    for language in ("en-US", "ja-JP", "auto"):
        ours = Recognizer.open(build / "fp32", threads=1, language=language)
        transcribed[language] = hear(recognizer, padded, language=language)
        assert transcribed[language] == text_of_windows(ours, recognizer, padded, [ours.prompt])
    assert len(set(transcribed.values())) > 1
    assert hear(recognizer, padded) == hear(recognizer, padded, language="xx") == transcribed["auto"]


# --- what it cannot run


def test_what_it_cannot_run_is_refused(streaming, tmp_path):
    with pytest.raises(UsageError, match="kv-fp32"):
        layout.lay_out(streaming, ["fp32", "kv-fp32"], tmp_path)
    with pytest.raises(UsageError, match="shards"):
        layout.LAYOUT.check_shards(10**6)
    assert not list(tmp_path.iterdir())
    usual = FrontendSpec(RATE, 80, 512, 400, 160, 0.97, 2**-24, "per_feature")
    decoding, encoder = DecodingSpec(4, 1, 1, 1, 10, durations=(0, 1, 2)), OfflineSpec(1, 1, 1, 8)
    layout._check(ModelSpec("offline-tdt", usual, decoding, offline=encoder), ["fp32"])
    bad = {
        r"durations \[0, 2\]": ModelSpec("offline-tdt", usual, replace(decoding, durations=(0, 2)), offline=encoder),
        "a prompt without auto": ModelSpec("x", usual, decoding, offline=encoder, prompt=PromptSpec(2, {"en": 0})),
    }
    for named, spec in bad.items():
        with pytest.raises(UsageError, match=named):
            layout._check(spec, ["fp32"])


def test_kv_variants_are_left_out_where_none_are_named(streaming, tmp_path):
    build = shutil.copytree(streaming, tmp_path / "build")
    shutil.copytree(build / "fp32", build / "kv-fp32")
    folder = packed(build, tmp_path / "dist", None)
    assert set(PackageManifest.read(folder).variants) == set(VARIANTS)


def test_a_graph_beyond_protobuf_keeps_its_weights_beside(streaming, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "SINGLE_FILE_BYTES", 10**6)
    layout.lay_out(streaming, ["fp32"], tmp_path)
    assert (tmp_path / "encoder.onnx.data").is_file() and (tmp_path / "encoder.onnx").stat().st_size < 2 * 10**6
    assert open_graph(tmp_path / "encoder.onnx", threads=1) and online(tmp_path)
