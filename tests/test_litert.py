"""LiteRT: static graphs against NeMo's streaming, weights that are stored once, and what each gate says of damage."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import damage
import numpy as np
import pytest

from nemoport import runtime
from nemoport.artifact import Artifact
from nemoport.caches_kv import KvCaches
from nemoport.errors import ArtifactError, UsageError
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.targets import export_target, litert
from nemoport.package.assemble import package
from nemoport.package.verify import verify
from nemoport.recognizer import Recognizer
from nemoport.runtimes import open_session
from nemoport.runtimes.litert import session as session_module
from nemoport.runtimes.litert.graphs import window_name
from nemoport.speech.corpus import read_corpus
from nemoport.validate import gates
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, PASS
from nemoport.validate.limits import limits_of
from nemoport.validate.oracle import record_oracle
from nemoport.validate.result_store import results_path
from nemoport.validate.run import judge

REFERENCE = Path(__file__).parent.parent / "reference"
LOOKAHEADS = (1, 0)  # of the four: a signature takes seconds to convert
TOLD = ("en-US", "ja-JP", "auto", "de-DE")


def needs_converter():
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("litert_torch")


def of_lookaheads(checkpoint, lookaheads):
    spec = checkpoint.spec
    return replace(checkpoint, spec=replace(spec, streaming=replace(spec.streaming, lookaheads=lookaheads)))


@pytest.fixture(scope="module")
def checkpoint(random_checkpoint):
    """Random weights whose tokens answer to the audio and to the prompt."""
    return of_lookaheads(read_checkpoint(str(random_checkpoint("tiny-multilingual"))), LOOKAHEADS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rows = [json.loads(line) for line in (REFERENCE / "audio" / "eval.jsonl").read_text().splitlines()[:24:6]]
    rows = [
        {
            "audio_filepath": str(REFERENCE / "audio" / row["audio_filepath"]),
            "text": row["text"],
            "lang": "es-ES",
            "target_lang": told,
        }
        for row, told in zip(rows, TOLD, strict=True)
    ]
    path = tmp_path_factory.mktemp("corpus") / "eval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_corpus(path, 16000)


@pytest.fixture(scope="module")
def build(checkpoint, tmp_path_factory):
    needs_converter()
    folder = tmp_path_factory.mktemp("build")
    for precision in litert.TARGET.precisions:
        export_target(checkpoint, folder, "litert", precision, None, progress=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def oracle(checkpoint, corpus, tmp_path_factory):
    return record_oracle(checkpoint, corpus, tmp_path_factory.mktemp("oracle"))


@pytest.fixture(scope="module")
def failing(checkpoint, corpus, oracle):
    """(build, variant, *gates) -> {gate: evidence of what fails}."""

    def judge(build, variant, *names):
        twice = replace(corpus, utterances=corpus.utterances * 2)  # the gate `batch` wants eight
        contexts = {
            name: Context(
                build / variant, limits_of(variant), checkpoint, twice if name == "batch" else corpus, oracle, threads=1
            )
            for name in names
        }
        found = {name: [r for r in gates.run_gate(name, contexts[name]) if r.status != PASS] for name in names}
        return {name: " ".join(r.evidence for r in results) for name, results in found.items() if results}

    return judge


@pytest.fixture
def copy(build, tmp_path):
    return shutil.copytree(build, tmp_path / "build")


def edit(build, variant, file, change):
    """change: of a model of ai-edge-quantizer's flatbuffer schema, in place."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    path = build / variant / file
    model = flatbuffer.read_model(str(path))
    change(model)
    flatbuffer.write_model(model, str(path))
    damage.seal(build / variant)


def edit_weight(build, variant, file, shape, change):
    """change: f32 array -> f32 array, of every constant of this shape; it must be there."""

    def change_all(model):
        tensors = [t for g in model.subgraphs for t in g.tensors if list(t.shape) == list(shape)]
        buffers = {t.buffer for t in tensors if model.buffers[t.buffer].data is not None}
        assert buffers
        for buffer in (model.buffers[number] for number in buffers):
            values = np.frombuffer(bytes(bytearray(buffer.data)), np.float32).reshape(shape).copy()
            buffer.data = np.frombuffer(change(values).astype(np.float32).tobytes(), np.uint8)

    edit(build, variant, file, change_all)


def swap_caches(model):
    """Keys come back as values in every window."""
    for signature in model.signatureDefs:
        outputs = {output.name.decode(): output for output in signature.outputs}
        key, value = outputs["key_new"], outputs["value_new"]
        key.tensorIndex, value.tensorIndex = value.tensorIndex, key.tensorIndex


@pytest.mark.parametrize("gate", ["contract", "numeric", "tokens", "batch", "cost"])
def test_fp32_passes(build, failing, gate):
    assert failing(build, "litert-fp32", gate) == {}


@pytest.mark.parametrize("variant", ["litert-fp16", "litert-int8"])
def test_fewer_bits_pass(build, failing, variant):
    assert failing(build, variant, "contract", "numeric") == {}


@pytest.mark.parametrize("variant", ["litert-fp32", "litert-fp16", "litert-int8"])
def test_windows_share_their_weights(build, checkpoint, variant):
    """Four signatures, and no constant of more than a kilobyte stands in the file twice."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    model = flatbuffer.read_model(str(build / variant / litert.ENCODER))
    assert len(model.signatureDefs) == 2 * len(LOOKAHEADS)
    constants = [bytes(bytearray(b.data)) for b in model.buffers if b.data is not None and len(b.data) > 1000]
    assert len(constants) == len(set(constants)) > 10 * checkpoint.spec.streaming.n_layers


def test_caches_that_are_mixed_up_are_rejected(copy, failing):
    edit(copy, "litert-fp32", litert.ENCODER, swap_caches)
    assert set(failing(copy, "litert-fp32", "contract", "numeric", "tokens")) == {"numeric", "tokens"}


def test_slots_of_another_dictionary_are_rejected(copy, failing, checkpoint):
    slots = checkpoint.load_weights()["prompt_kernel.0.weight"]
    shape = (checkpoint.spec.prompt.slots, slots.shape[0])
    edit_weight(copy, "litert-fp32", litert.ENCODER, shape, lambda table: np.roll(table, 1, 0))
    assert "numeric" in failing(copy, "litert-fp32", "numeric")


def test_first_target_0_is_rejected(copy, failing, checkpoint):
    blank = checkpoint.spec.decoding.blank_id
    width = checkpoint.load_weights()["decoder.prediction.embed.weight"].shape[1]

    def change(table):
        table[blank] = table[0]
        return table

    edit_weight(copy, "litert-fp32", litert.DECODER, (blank + 1, width), change)
    assert set(failing(copy, "litert-fp32", "numeric", "tokens")) == {"tokens"}


def test_nan_and_cut_files_fail_every_gate(copy, failing):
    running = ("numeric", "tokens", "batch")
    path = copy / "litert-fp32" / litert.ENCODER
    path.write_bytes(path.read_bytes()[:1000])
    damage.seal(path.parent)
    assert set(failing(copy, "litert-fp32", *running)) == set(running)
    edit_weight(copy, "litert-fp16", litert.DECODER, _head_bias(copy), lambda bias: bias * np.nan)
    assert "NaN" in failing(copy, "litert-fp16", "tokens")["tokens"]


def _head_bias(build):
    return (Artifact.open(build / "litert-fp16").spec.decoding.n_scores,)


def test_contract_names_what_is_wrong(copy, failing):
    edit(copy, "litert-fp32", litert.ENCODER, lambda model: model.signatureDefs.pop())
    assert "is absent" in failing(copy, "litert-fp32", "contract")["contract"]
    assert "There is no graph for this window" in failing(copy, "litert-fp32", "tokens")["tokens"]
    path = copy / "litert-int8" / litert.INTERFACE
    path.write_text(path.read_text().replace("cache_key", "cache_keys"))
    damage.seal(path.parent)
    assert litert.INTERFACE in failing(copy, "litert-int8", "contract")["contract"]


def test_only_batch_finds_streams_that_mix(build, failing, monkeypatch):
    """Each stream of a batch is given the caches of the first."""
    stream = session_module._stream
    monkeypatch.setattr(session_module, "_stream", lambda cached, row: stream(cached, 0))
    assert "batch" in failing(build, "litert-fp32", "batch")


def test_cost_sees_weights_that_stayed_in_floats(copy, checkpoint, corpus, oracle):
    """By a limit between the two: in a model this small the graph outweighs the weights."""
    limits = limits_of("litert-int8").override("cost", max_bytes_ratio=0.9)

    def failed():
        context = Context(copy / "litert-int8", limits, checkpoint, corpus, oracle, threads=1)
        return [result.case for result in gates.run_gate("cost", context) if result.status == FAIL]

    assert failed() == []
    shutil.copy(copy / "litert-fp32" / litert.ENCODER, copy / "litert-int8" / litert.ENCODER)
    damage.seal(copy / "litert-int8")
    assert failed() == ["bytes of fp32's"]


def test_wrong_scales_are_rejected(copy, failing):
    """A third too large, in every second row of every matrix."""

    def stretch(model):
        found = [t.quantization for g in model.subgraphs for t in g.tensors if t.quantization is not None]
        found = [q for q in found if q.scale is not None and len(q.scale) > 1]
        assert found
        for quantization in found:
            quantization.scale = np.array(quantization.scale) * np.resize([1, 4 / 3], len(quantization.scale))

    edit(copy, "litert-int8", litert.ENCODER, stretch)
    assert "numeric" in failing(copy, "litert-int8", "numeric")


def test_package(copy, checkpoint, corpus, oracle, tmp_path):
    build = copy
    for variant in ("litert-fp32", "litert-fp16", "litert-int8"):
        context = Context(build / variant, limits_of(variant), checkpoint, corpus, oracle, threads=1)
        assert all(result.passed for result in judge(context, results_path(build, variant), ["contract"]))
    dist = package(build, tmp_path / "dist", licence="apache-2.0", layout="litert", required_passes=lambda *_: [])
    assert [line.partition(":")[0] for line in verify(dist)[2:]] == ["litert-fp16", "litert-fp32", "litert-int8"]
    assert "loads in litert" in verify(dist)[-1]
    card = (dist / "README.md").read_text()
    assert "in LiteRT" in card and "onnxruntime" not in card and "later_<lookahead>" in card
    rules = json.loads((dist / "rules.json").read_text())
    interface = json.loads((dist / "litert-fp32" / litert.INTERFACE).read_text())
    window = interface[litert.ENCODER]["later_1"]["inputs"]
    assert {name: shape for name, (_, shape) in window.items() if name.startswith("cache")} == rules["cache_shapes"]
    assert rules["next_chunk_rule"] in card and "later_<lookahead>" in rules["next_chunk_rule"]
    from nemoport.package.examples import litert as litert_example

    transcribed = set()
    for utterance, language in zip(corpus.utterances, TOLD, strict=True):
        ours = [Recognizer.open(folder / "litert-fp32", 1, language=language, threads=1) for folder in (build, dist)]
        said = [one.transcribe_file(utterance.path) for one in ours]
        tokens, text = litert_example.transcribe(dist, "litert-fp32", utterance.path, 1, language)
        assert said[0].tokens == said[1].tokens == tuple(tokens) and said[0].text == text
        transcribed.add(text)
    assert len(transcribed - {""}) > 1
    assert litert_example.__doc__ in card
    with pytest.raises(UsageError, match="no shards"):
        package(build, tmp_path / "other", licence="apache-2.0", layout="litert", shard_bytes=1, required_passes=lambda *_: [])


def test_a_window_opened_alone_is_that_of_the_whole_file(build):
    """To the bit, in 8 bits too, where the kernels that the interpreter falls back on round otherwise."""
    from ai_edge_litert.interpreter import Interpreter

    artifact = Artifact.open(build / "litert-int8")
    whole = Interpreter(str(artifact.folder / litert.ENCODER), num_threads=1)
    for lookahead in LOOKAHEADS:
        session = open_session(artifact, threads=1)
        size = artifact.spec.streaming.window_mel_frames(lookahead, first=True)
        mel = np.random.default_rng(lookahead).normal(-8, 2, (1, 128, size)).astype(np.float32)
        ours, _, _ = session.encode(mel, np.array([size]), session.initial_state(1, [9]))
        runner = whole.get_signature_runner(window_name(lookahead, True))
        theirs = runner(audio_signal=mel, length=np.array([size], np.int32), prompt_index=np.array([9], np.int32))
        assert np.array_equal(ours, theirs["outputs"])


def test_joint_takes_any_number_of_frames(build):
    session = open_session(Artifact.open(build / "litert-fp32"), threads=1)
    spec = session.spec.decoding
    frames = np.random.default_rng(0).normal(size=(2, 7, session.spec.encoder.d_model)).astype(np.float32)
    states = [np.zeros(spec.state_shape(2), np.float32)] * 2
    scores, _ = session.step(frames, np.array([0, 5], np.int32), states)
    for t in range(7):
        one, _ = session.step(frames[:, t : t + 1], np.array([0, 5], np.int32), states)
        np.testing.assert_allclose(one[:, 0], scores[:, t], atol=1e-5)


def test_what_cannot_be_served_is_refused(build, checkpoint, tmp_path, monkeypatch):
    artifact = Artifact.open(build / "litert-fp32")
    with pytest.raises(UsageError, match="no provider 'cuda'"):
        open_session(artifact, "cuda")
    session = open_session(artifact, threads=1)
    state = session.initial_state(1, [0])
    assert isinstance(state.caches, KvCaches)
    with pytest.raises(UsageError, match=r"later_1.*later_0|later_0.*later_1"):
        session.encode(np.zeros((1, 128, 121), np.float32), np.array([121]), state)
    with pytest.raises(UsageError, match="Lookahead 13"):
        Recognizer.open(build / "litert-fp32", 13, language="auto").stream()
    damaged = shutil.copytree(build, tmp_path / "build")
    (damaged / "litert-fp32" / litert.DECODER).write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        open_session(Artifact.open(damaged / "litert-fp32"))


def test_offline_models_are_refused(tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    offline = read_checkpoint(str(REFERENCE / "checkpoints" / "offline-tdt.nemo"))
    with pytest.raises(UsageError, match="offline model cannot be exported for LiteRT"):
        export_target(offline, tmp_path, "litert", "fp32", None, progress=print)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("litert")]


def test_missing_packages_are_named(reference_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"nemoport\[litert\]"):
        export_target(reference_checkpoint, tmp_path, "litert", "fp32", None, progress=print)
    monkeypatch.setattr(runtime, "find_spec", lambda name: True)
    monkeypatch.setattr(litert, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="make setup-litert"):
        export_target(reference_checkpoint, tmp_path, "litert", "fp32", None, progress=print)


@pytest.mark.slow
def test_gates_in_words_see_a_trained_model_and_its_damage(reference_checkpoint, eval_corpus, oracle_en, tmp_path):
    """wer, boundary, longform, conditions: of the committed checkpoint, at two of its lookaheads."""
    needs_converter()
    checkpoint = of_lookaheads(reference_checkpoint, (6, 0))
    export_target(checkpoint, tmp_path, "litert", "fp32", None, progress=lambda line: None)
    words = ("wer", "boundary", "longform", "conditions")

    def failed():
        context = Context(tmp_path / "litert-fp32", limits_of("litert-fp32"), checkpoint, eval_corpus, oracle_en, threads=1)
        context.limits = context.limits.override("longform", minutes=1)
        return {name for name in words if any(r.status == FAIL for r in gates.run_gate(name, context))}

    assert failed() == set()
    edit(tmp_path, "litert-fp32", litert.ENCODER, swap_caches)
    assert failed() == set(words)


@pytest.fixture(scope="module")
def oracle_en(reference_checkpoint, eval_corpus, tmp_path_factory):
    return record_oracle(of_lookaheads(reference_checkpoint, (6, 0)), eval_corpus, tmp_path_factory.mktemp("oracle"))
