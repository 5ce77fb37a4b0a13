"""OpenVINO: the gates pass on what is converted and reject what is damaged; the names of FluidInference's package; the package;
what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import damage
import numpy as np
import pytest
from contract import runtime_problems

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError, UsageError
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.targets import export_target
from nemoport.files import read_json, write_json
from nemoport.frontend import LogMel
from nemoport.package.assemble import package
from nemoport.package.examples import openvino as openvino_example
from nemoport.package.verify import verify
from nemoport.recognizer import Recognizer
from nemoport.runtimes import open_session
from nemoport.runtimes.openvino.graphs import ENCODER, GRAPHS, JOINT, METADATA, PREPROCESSOR, VOCABULARY
from nemoport.speech.corpus import read_corpus
from nemoport.validate import gates
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, PASS, GateResult, artifact_sha256
from nemoport.validate.limits import limits_of
from nemoport.validate.result_store import results_path, write_results

openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytestmark = pytest.mark.usefixtures("cost_in_process")
AUDIO = Path(__file__).parent.parent / "reference" / "audio"
FP32, INT8, KV_INT8 = "openvino-fp32", "openvino-int8", "openvino-kv-int8"


def export(checkpoint, folder, *precisions):
    for precision in precisions:
        export_target(checkpoint, folder, "openvino", precision, None, progress=lambda line: None)


@pytest.fixture(scope="module")
def made(build, reference_checkpoint, tmp_path_factory):
    folder = damage.copy_build(build, tmp_path_factory.mktemp("openvino") / "build")
    export(reference_checkpoint, folder, "fp32", "int8", "kv-fp32", "kv-int8")
    return folder


@pytest.fixture
def copy(made, tmp_path):
    """Of the fp32 variant alone, with what all share."""
    (tmp_path / "build").mkdir()
    for name in (FP32, "shared"):
        shutil.copytree(made / name, tmp_path / "build" / name)
    shutil.copy(made / "config.json", tmp_path / "build")
    return tmp_path / "build"


@pytest.fixture(scope="module")
def context_of(reference_checkpoint, eval_corpus, oracle):
    def make(build, variant=FP32, lookaheads=(6, 0), streams=None):
        spec = reference_checkpoint.spec
        spec = replace(spec, streaming=replace(spec.streaming, lookaheads=lookaheads))
        limits = limits_of(variant)
        limits = replace(limits, streams=streams or limits.streams)
        checkpoint = replace(reference_checkpoint, spec=spec)
        return Context(build / variant, limits, checkpoint, eval_corpus, oracle, threads=1)

    return make


def failing(context, *names):
    return [name for name in names if any(r.status == FAIL for r in gates.run_gate(name, context))]


def edit(build, graph, change, variant=FP32):
    """change: edits an openvino.Model in place, or returns another."""
    path = build / variant / f"{graph}.xml"
    model = openvino.Core().read_model(path)
    model = change(model) or model
    model.validate_nodes_and_infer_types()
    openvino.save_model(model, path.with_name("edited.xml"), compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        path.with_name(f"edited{suffix}").replace(path.with_suffix(suffix))
    damage.seal(build / variant)


def behind(model, name, make):
    """Puts make(output) in front of the result `name`."""
    result = next(r for r in model.get_results() if name in r.output(0).get_names())
    source = result.input_value(0)
    source.get_tensor().set_names({f"{name}_raw"})
    result.input(0).replace_source_output(make(source))
    result.output(0).get_tensor().set_names({name})


# --- the gates


@pytest.mark.parametrize("variant", [FP32, "openvino-kv-fp32", INT8, KV_INT8])
def test_the_gates_pass(made, context_of, variant, reference_checkpoint):
    whole = context_of(made, variant, reference_checkpoint.spec.streaming.lookaheads)
    assert [r.evidence for r in gates.run_gate("contract", whole) if r.status != PASS] == []
    names = ("tokens", "numeric", "boundary", "batch", "wer") if variant == FP32 else ("tokens", "numeric")
    assert failing(context_of(made, variant), *names) == []
    assert variant == FP32 or failing(context_of(made, variant), "cost") == []


def test_swapped_layers_are_rejected(copy, context_of):
    from openvino import opset13 as opset

    def reverse(model):
        order, axis = opset.constant(np.arange(6)[::-1].copy()), opset.constant(np.int64(1))
        behind(model, "cache_channel_out", lambda source: opset.gather(source, order, axis).output(0))

    edit(copy, ENCODER, reverse)
    assert failing(context_of(copy), "numeric", "tokens", "wer") == ["numeric", "tokens", "wer"]


def test_only_batch_finds_streams_that_mix(copy, context_of):
    """In a batch each stream gets its neighbour's cache; a stream alone gets its own."""
    from openvino import opset13 as opset

    def roll(model):
        ones = lambda *values: opset.constant(np.array(values, np.int64))  # noqa: E731

        def rolled(source):
            tail = opset.slice(source, ones(1), ones(2**31 - 1), ones(1), ones(0))
            head = opset.slice(source, ones(0), ones(1), ones(1), ones(0))
            return opset.concat([tail, head], 0).output(0)

        behind(model, "cache_channel_out", rolled)

    edit(copy, ENCODER, roll)
    assert failing(context_of(copy, lookaheads=(6,), streams=1), "batch", "tokens") == ["batch"]


def scaled(operation, change):
    """Replaces an operation's weight, f32."""
    from openvino import opset13 as opset

    weight = operation.input_value(1).get_node()
    operation.input(1).replace_source_output(opset.constant(change(weight.get_data().astype(np.float32))).output(0))


def matrices(model, kind):
    return [op for op in model.get_ops() if op.get_type_name() == "MatMul" and kind in op.get_friendly_name()]


@pytest.mark.parametrize(
    ("graph", "kind", "change", "gate"),
    [
        (ENCODER, "feed_forward", damage.shuffle_scales, "numeric"),
        (ENCODER, "layers.0/conv/pointwise_conv1", lambda w: w * np.float32(np.nan), "tokens"),
        (JOINT, "head", lambda w: np.roll(w, 1, 1), "wer"),
        (JOINT, "head", lambda w: w * 0, "boundary"),
        (JOINT, "head", lambda w: w * 0, "cost"),
    ],
    ids=["scales in another order", "NaN", "another vocabulary", "one token only", "nothing transcribed"],
)
def test_damaged_weights_are_rejected(copy, context_of, graph, kind, change, gate):
    def damaged(model):
        chosen = matrices(model, kind)
        assert chosen
        for operation in chosen:
            scaled(operation, change)
        if gate == "cost":  # no token at all: blank is far above all others
            from openvino import opset13 as opset

            bias = np.zeros(97, np.float32)
            bias[-1] = 1e4
            behind(model, "logits", lambda source: opset.add(source, opset.constant(bias)).output(0))

    edit(copy, graph, damaged)
    assert failing(context_of(copy, lookaheads=(6,)), gate) == [gate]


@pytest.mark.parametrize("gate", ["longform", "conditions"])
def test_a_stream_that_forgets_is_rejected(copy, context_of, gate, monkeypatch):
    """Caches that never fill: nothing before the chunk is transcribed."""
    from openvino import opset13 as opset

    edit(
        copy,
        ENCODER,
        lambda model: behind(
            model, "cache_len_out", lambda source: opset.multiply(source, opset.constant(np.int32(0))).output(0)
        ),
    )
    context = context_of(copy, lookaheads=(6,))
    context.limits = context.limits.override("longform", minutes=0.3)
    assert failing(context, gate) == [gate]


def rename_output(model):
    model.outputs[0].get_tensor().set_names({"outputs"})


def change_json(name, key, value):
    def change(folder):
        values = read_json(folder / name, "")
        write_json(folder / name, {**values, key: value})

    return change


@pytest.mark.parametrize(
    ("how", "named"),
    [
        (rename_output, "unknown output outputs"),
        (change_json(METADATA, "cache_channel_shape", [1, 6, 56, 176]), "cache_channel_shape: expected"),
        (change_json(METADATA, "runtime", {}), "runtime: expected"),
        (change_json(VOCABULARY, "0", "wrong"), VOCABULARY),
    ],
    ids=["output", "left context", "precision", "vocabulary"],
)
def test_the_contract_is_checked(copy, context_of, reference_checkpoint, how, named):
    if how is rename_output:
        edit(copy, ENCODER, how)
    else:
        how(copy / FP32)
        damage.seal(copy / FP32)
    (result,) = gates.run_gate("contract", context_of(copy, lookaheads=reference_checkpoint.spec.streaming.lookaheads))
    assert result.status == FAIL and named in result.evidence


# --- the graphs


def test_converting_reports_nothing(build, reference_checkpoint, tmp_path, monkeypatch):
    """To Google Analytics, as OpenVINO's converter does unless the user has opted out; nor is an id of the user written."""
    backend = pytest.importorskip("openvino_telemetry.backend.backend_ga4").GA4Backend
    sent, home = [], tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(backend, "send", lambda self, message: sent.append(message))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("CI", raising=False)
    export(reference_checkpoint, damage.copy_build(build, tmp_path / "build"), "fp32")
    assert sent == [] and list(home.rglob("*")) == []


def test_weights_in_8_bits_are_those_of_the_layers(made):
    from nemoport.export.targets.openvino.compress import compressed

    for variant in (INT8, KV_INT8):
        names = compressed(openvino.Core().read_model(made / variant / f"{ENCODER}.xml"))
        assert len(names) == 60 and not [n for n in names if n.startswith("/pre_encode")]


def test_front_end(made, reference_checkpoint, eval_corpus):
    utterances = [u.samples() for u in eval_corpus.utterances[:2]]
    audio = np.zeros((2, max(map(len, utterances))), np.float32)
    for row, samples in zip(audio, utterances, strict=True):
        row[: len(samples)] = samples
    compiled = openvino.Core().compile_model(made / INT8 / f"{PREPROCESSOR}.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    out = compiled({"audio": audio, "audio_length": np.array([len(s) for s in utterances], np.int32)})
    mel = LogMel(reference_checkpoint.spec.frontend, Artifact.open(made / INT8).filterbank())
    for i, samples in enumerate(utterances):
        whole = mel.whole(samples)
        assert out["mel_length"][i] == whole.shape[1] == len(samples) // 160
        assert np.abs(out["mel"][i, :, : whole.shape[1]] - whole).max() < 1e-3


def test_one_window_length_with_zeros_first(made, build, eval_corpus):
    """As consumers of FluidInference's package feed it, [1, 128, 121] always: the frames that the ONNX graph gives for the
    same."""
    sessions = [open_session(Artifact.open(folder), threads=1) for folder in (made / FP32, build / "fp32")]
    rng, states = np.random.default_rng(0), [session.initial_state(1) for session in sessions]
    for at in range(8):
        mel = rng.normal(-8, 2, (1, 128, 121)).astype(np.float32)
        if at == 0:
            mel[:, :, :9] = 0
        frames = []
        for i, session in enumerate(sessions):
            made_frames, lengths, states[i] = session.encode(mel, np.array([121]), states[i])
            assert made_frames.shape == (1, 14, 176) and lengths == [14]
            frames.append(made_frames)
        assert np.abs(frames[0] - frames[1]).max() < 1e-4


@pytest.mark.parametrize("lookahead", [13, 1])
def test_the_cards_example_hears_the_same(made, eval_corpus, lookahead):
    utterance = max(eval_corpus.utterances, key=lambda u: u.seconds)
    tokens, text = openvino_example.transcribe(made / FP32, utterance.path, lookahead)
    expected = Recognizer.open(made / FP32, lookahead, threads=1).transcribe_file(utterance.path)
    assert (tuple(tokens), text) == (expected.tokens, expected.text) and len(tokens) > 10


def test_a_prompt_is_heard(random_checkpoint, tmp_path):
    """Streams of several languages in one batch, by both contracts, as in onnxruntime; the example, told one."""
    checkpoint = read_checkpoint(str(random_checkpoint("tiny-multilingual")))
    export(checkpoint, tmp_path / "build", "fp32", "kv-fp32")
    samples = read_corpus(AUDIO / "eval.jsonl", 16000).utterances[0]
    spec, transcribed = checkpoint.spec, set()
    size = spec.streaming.window_mel_frames(3, first=False)
    for variant, like in ((FP32, "fp32"), ("openvino-kv-fp32", "kv-fp32")):
        artifact = Artifact.open(tmp_path / "build" / variant)
        assert [p for p in runtime_problems(artifact, spec) if p] == []
        frames = []
        for folder in (variant, like):
            session = open_session(Artifact.open(tmp_path / "build" / folder), threads=1)
            state = session.initial_state(3, [0, 10, 101])
            mel = np.random.default_rng(1).normal(-8, 2, (1, 128, size)).astype(np.float32).repeat(3, 0)
            for _ in range(3):
                made_frames, _, state = session.encode(mel, np.full(3, size), session.stack(session.unstack(state)))
            frames.append(made_frames)
        assert np.abs(frames[0] - frames[1]).max() < 1e-4 < np.abs(frames[0][0] - frames[0][1]).max()
    for language in ("en-US", "ja-JP"):
        ours = Recognizer.open(tmp_path / "build" / FP32, threads=1, language=language).transcribe_file(samples.path)
        tokens, text = openvino_example.transcribe(tmp_path / "build" / FP32, samples.path, 3, language)
        assert (tuple(tokens), text) == (ours.tokens, ours.text)
        transcribed.add(text)
    assert len(transcribed) == 2
    told = read_json(tmp_path / "build" / FP32 / METADATA, "")
    assert told["prompt_dictionary"]["auto"] == told["default_prompt_id"] == 101 and told["num_prompts"] == 128


# --- the package


@pytest.fixture(scope="module")
def packed(made, tmp_path_factory):
    build = tmp_path_factory.mktemp("packed") / "build"
    shutil.copytree(made, build)
    for variant in (FP32, INT8, KV_INT8):
        sha256, case = artifact_sha256(build / variant), "all lookaheads: difference"
        write_results(results_path(build, variant), [GateResult("wer", variant, sha256, PASS, case, 0.0, 0.3, "WER points", 9)])
    return package(
        build, build.parent / "dist", [FP32, INT8, KV_INT8], licence="apache-2.0", layout="openvino",
        required_passes=lambda build, variant: [],
    )  # fmt: skip


def test_the_package_is_card_002s(packed):
    for name in ("fp32", "int8", "kv-int8"):
        files = {f"{graph}{suffix}" for graph in GRAPHS for suffix in (".xml", ".bin")} | {VOCABULARY, METADATA}
        assert {path.name for path in (packed / name).iterdir()} == files | {"manifest.json"}
    lines = verify(packed)
    assert len(lines) == 5 and f"{INT8}: loads in openvino" in "\n".join(lines)
    shutil.rmtree(packed.parent / "part", ignore_errors=True)
    part = shutil.copytree(packed, packed.parent / "part", ignore=shutil.ignore_patterns("fp32", "kv-int8"))
    assert len(verify(part, [INT8])) == 3
    card = (packed / "README.md").read_text()
    assert 'library_name: "openvino"' in card and "- openvino\n" in card
    assert "OpenVINO graphs of" in card and "`cache_channel`: [1, 6, 70, 176]" in card and "`cache_key_<layer>`" in card
    for absent in ("cache_last_channel", "input_states_1", "onnxruntime", "ONNX", "encoded_lengths", "*_next"):
        assert absent not in card


def test_the_package_transcribes(packed, made, eval_corpus):
    path = eval_corpus.utterances[-1].path
    transcribed = Recognizer.open(packed / "int8", threads=1).transcribe_file(path)
    assert transcribed.tokens == Recognizer.open(made / INT8, threads=1).transcribe_file(path).tokens != ()


@pytest.mark.parametrize("how", ["cut", "missing", "scores"])
def test_verify_notices(packed, tmp_path, how):
    folder = shutil.copytree(packed, tmp_path / "dist")
    file = folder / "fp32" / f"{JOINT}.bin"
    if how == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif how == "missing":
        file.unlink()
    else:
        file.write_bytes(bytes(len(file.read_bytes())))
    with pytest.raises(ArtifactError, match=f"fp32/{JOINT}.bin"):
        verify(folder, [FP32])


# --- what is refused


def test_a_cut_graph_and_an_absent_device(copy):
    artifact = Artifact.open(copy / FP32)
    with pytest.raises(UsageError, match="one of cpu"):
        open_session(artifact, provider="npu")
    weights = artifact.folder / f"{ENCODER}.bin"
    weights.write_bytes(weights.read_bytes()[: 10**6])
    with pytest.raises(ArtifactError, match=f"{ENCODER}.xml cannot be loaded"):
        open_session(artifact)


def test_rounding_that_this_processor_does_not_do_is_not_judged(made, reference_checkpoint, tmp_path, monkeypatch):
    import nemoport.runtimes.openvino as runtime

    export(reference_checkpoint, made, "kv-int8-dynamic")
    artifact = Artifact.open(made / "openvino-kv-int8-dynamic")
    for machine, found in (("x86_64 avx2", 1), ("x86_64 avx2 avx512_vnni", 0)):
        monkeypatch.setattr(runtime, "instruction_set", lambda machine=machine: machine)
        assert len([p for p in runtime_problems(artifact, artifact.spec) if p]) == found
