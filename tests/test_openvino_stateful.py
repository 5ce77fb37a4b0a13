"""Caches as OpenVINO's state: the same frames as with caches that are handed on, alone, interleaved and in batches that
change; the gates reject states that are not kept; the package."""

import copy
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
from nemoport.files import read_json
from nemoport.package.assemble import package
from nemoport.package.examples import openvino as openvino_example
from nemoport.package.verify import verify
from nemoport.recognizer import Recognizer
from nemoport.runtimes import open_session
from nemoport.runtimes.openvino.graphs import ENCODER, METADATA
from nemoport.speech.corpus import read_corpus
from nemoport.stream import Stream, advance
from nemoport.validate import gates
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, PASS, GateResult, artifact_sha256
from nemoport.validate.limits import limits_of
from nemoport.validate.result_store import results_path, write_results

openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytestmark = pytest.mark.usefixtures("cost_in_process")
AUDIO = Path(__file__).parent.parent / "reference" / "audio"
FP32, INT8 = "openvino-stateful-fp32", "openvino-stateful-int8"


def export(checkpoint, folder, *precisions):
    for precision in precisions:
        export_target(checkpoint, folder, "openvino", precision, None, progress=lambda line: None)


@pytest.fixture(scope="module")
def made(build, reference_checkpoint, tmp_path_factory):
    folder = damage.copy_build(build, tmp_path_factory.mktemp("stateful") / "build")
    export(reference_checkpoint, folder, "fp32", "stateful-fp32", "stateful-int8")
    return folder


@pytest.fixture(scope="module")
def sessions(made):
    """With state, and with the caches handed on in onnxruntime."""
    return [open_session(Artifact.open(made / variant), threads=1) for variant in (FP32, "kv-fp32")]


@pytest.fixture(scope="module")
def context_of(reference_checkpoint, eval_corpus, oracle):
    def make(build, variant=FP32, lookaheads=(6, 0)):
        spec = reference_checkpoint.spec
        spec = replace(spec, streaming=replace(spec.streaming, lookaheads=lookaheads))
        checkpoint = replace(reference_checkpoint, spec=spec)
        return Context(build / variant, limits_of(variant), checkpoint, eval_corpus, oracle, threads=1)

    return make


def failing(context, *names):
    return [name for name in names if any(r.status == FAIL for r in gates.run_gate(name, context))]


def windows(session, count, seed=0, streams=1, lookahead=6):
    """mel of a first window and of later ones, f32 [streams, n_mels, T]."""
    rng, spec = np.random.default_rng(seed), session.spec
    sizes = [spec.streaming.window_mel_frames(lookahead, first=i == 0) for i in range(count)]
    return [rng.normal(-8, 2, (streams, spec.frontend.n_mels, size)).astype(np.float32) for size in sizes]


def lengths(mel):
    return np.full(len(mel), mel.shape[2])


def transcribed(session, windows, state):
    frames = []
    for mel in windows:
        chunk, _, state = session.encode(mel, lengths(mel), state)
        frames.append(chunk)
    return np.concatenate(frames, 1)


# --- the gates


@pytest.mark.parametrize("variant", [FP32, INT8])
def test_the_gates_pass(made, context_of, variant, reference_checkpoint):
    whole = context_of(made, variant, reference_checkpoint.spec.streaming.lookaheads)
    assert [r.evidence for r in gates.run_gate("contract", whole) if r.status != PASS] == []
    names = ("tokens", "numeric", "boundary", "batch", "wer", "cost") if variant == FP32 else ("tokens", "numeric", "cost")
    assert failing(context_of(made, variant), *names) == []


def assigns(model, prefix):
    found = [sink for sink in model.get_sinks() if sink.get_variable_id().startswith(prefix)]
    assert found
    return found


def reads(model, prefix):
    found = [op for op in model.get_ops() if op.get_type_name() == "ReadValue" and op.get_variable_id().startswith(prefix)]
    assert found
    return found


def drop_an_assign(model):
    model.remove_sink(assigns(model, "cache_key_3")[0])


def keep_what_was_read(model):
    read = {op.get_variable_id(): op.output(0) for op in reads(model, "cache_value")}
    for sink in assigns(model, "cache_value"):
        sink.input(0).replace_source_output(read[sink.get_variable_id()])


def begin_with_ones(model):
    from openvino import opset13 as opset

    for read in reads(model, "cache_conv"):
        read.input(0).replace_source_output(opset.exp(read.input_value(0)).output(0))


def reverse_layers(model):
    sinks = assigns(model, "cache_key")
    sources = {sink.get_variable_id(): sink.input_value(0) for sink in sinks}
    for sink in sinks:
        layer = int(sink.get_variable_id().rpartition("_")[2])
        sink.input(0).replace_source_output(sources[f"cache_key_{len(sinks) - 1 - layer}"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop_an_assign, "state cache_key_3 is never written"),
        (keep_what_was_read, ""),
        (begin_with_ones, ""),
        (reverse_layers, ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_states_that_are_not_kept_are_rejected(made, tmp_path, context_of, change, told, reference_checkpoint):
    for name in (FP32, "shared"):
        shutil.copytree(made / name, tmp_path / name)
    shutil.copy(made / "config.json", tmp_path)
    path = tmp_path / FP32 / f"{ENCODER}.xml"
    model = openvino.Core().read_model(path)
    change(model)
    model.validate_nodes_and_infer_types()
    openvino.save_model(model, path.with_name("edited.xml"), compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        path.with_name(f"edited{suffix}").replace(path.with_suffix(suffix))
    damage.seal(tmp_path / FP32)
    assert failing(context_of(tmp_path, lookaheads=(6,)), "numeric", "tokens") == ["numeric", "tokens"]
    whole = context_of(tmp_path, lookaheads=reference_checkpoint.spec.streaming.lookaheads)
    (contract,) = gates.run_gate("contract", whole)
    assert (contract.status == FAIL) == bool(told) and told in contract.evidence


# --- streams


def test_an_application_hands_over_mel_only(made, sessions):
    """OpenVINO alone: two streams interleaved, each with a request of one compiled model, then a third in one of them."""
    compiled = openvino.Core().compile_model(
        made / FP32 / f"{ENCODER}.xml", "CPU", read_json(made / FP32 / METADATA, "")["runtime"]
    )
    assert {port.get_any_name() for port in compiled.inputs} == {"mel", "mel_length"}

    def run(request, mel):
        out = request.infer({"mel": mel, "mel_length": lengths(mel).astype(np.int32)})
        return out["encoded"].transpose(0, 2, 1).copy()

    streams = [windows(sessions[1], 14, seed) for seed in range(3)]
    first, second = (compiled.create_infer_request() for _ in range(2))
    pairs = [(run(first, one), run(second, other)) for one, other in zip(*streams[:2], strict=True)]
    first.reset_state()
    found = [*zip(*pairs, strict=True), [run(first, mel) for mel in streams[2]]]
    for frames, stream in zip(found, streams, strict=True):
        expected = transcribed(sessions[1], stream, sessions[1].initial_state(1))
        assert np.abs(np.concatenate(frames, 1) - expected).max() < 1e-4
    with pytest.raises(RuntimeError, match="input tensor size is not equal"):
        run(first, streams[0][1].repeat(2, 0))


@pytest.mark.parametrize("lookahead", [13, 1])
def test_whole_streams_by_the_chunk(made, sessions, eval_corpus, lookahead):
    """First and short last windows of streams that join one after another and end at different times."""
    filterbank, told = Artifact.open(made / FP32).filterbank(), []
    for session in sessions:
        streams = [Stream(session, filterbank, lookahead) for _ in eval_corpus.utterances]
        frames = [[] for _ in streams]
        for stream, utterance in zip(streams, eval_corpus.utterances, strict=True):
            stream.push(utterance.samples())
            stream.close()
        joined = 0
        while any(stream.chunks for stream in streams):
            joined += 1
            for kept, new in zip(frames, advance(session, streams[:joined]), strict=False):
                kept.append(new)
        told.append([(stream.tokens, np.concatenate(kept)) for stream, kept in zip(streams, frames, strict=True)])
    for (tokens, frames), (expected, theirs) in zip(*told, strict=True):
        assert tokens == expected and np.abs(frames - theirs).max() < 1e-4
    assert sum(len(tokens) for tokens, _ in told[0]) > 50


def test_streams_are_joined_parted_and_copied(sessions):
    """Fresh ones with others, in another order, twice; a copy goes on by itself."""
    told = []
    for session in sessions:
        mels = windows(session, 6, streams=3)
        frames, _, state = session.encode(mels[0][:2], lengths(mels[0][:2]), session.initial_state(2))
        both, fresh = session.unstack(state), session.unstack(session.initial_state(1))
        state = session.stack([both[1], fresh[0], both[0]])
        kept = copy.deepcopy(state)
        steps = [frames, transcribed(session, mels[1:4], state), transcribed(session, mels[1:3], kept)]
        copied = copy.deepcopy(session.unstack(session.initial_state(1))[0])
        told.append([*steps, transcribed(session, [mel[:1] for mel in mels[4:]], session.stack([copied]))])
    for ours, theirs in zip(*told, strict=True):
        assert ours.shape == theirs.shape and np.abs(ours - theirs).max() < 1e-4


def test_what_cannot_go_on_is_refused(sessions):
    session = sessions[0]
    first, later, _ = windows(session, 3)
    old = session.initial_state(1)
    _, _, state = session.encode(first, lengths(first), old)
    with pytest.raises(UsageError, match="another number of streams"):
        session.encode(later.repeat(2, 0), np.full(2, later.shape[2]), state)
    session.encode(later, lengths(later), state)
    for stale in (old, state):
        with pytest.raises(ArtifactError, match="gone on without it"):
            session.encode(later, lengths(later), stale)
    twice = session.stack(session.unstack(session.initial_state(1)) * 2)
    with pytest.raises(ArtifactError, match="gone on without it"):
        session.encode(first.repeat(2, 0), np.full(2, first.shape[2]), twice)


def test_a_prompt_is_heard(random_checkpoint, tmp_path):
    """Streams of several languages in one batch, as in onnxruntime; the card's example, told one."""
    checkpoint = read_checkpoint(str(random_checkpoint("tiny-multilingual")))
    build = tmp_path / "build"
    export(checkpoint, build, "stateful-fp32")
    assert [p for p in runtime_problems(Artifact.open(build / FP32), checkpoint.spec) if p] == []
    frames = []
    for variant in (FP32, "kv-fp32"):
        session = open_session(Artifact.open(build / variant), threads=1)
        mels = [mel.repeat(3, 0) for mel in windows(session, 4, lookahead=3)]
        frames.append(transcribed(session, mels, session.initial_state(3, [0, 10, 101])))
    assert np.abs(frames[0] - frames[1]).max() < 1e-4 < np.abs(frames[0][0] - frames[0][1]).max()
    path = read_corpus(AUDIO / "eval.jsonl", 16000).utterances[0].path
    tokens, text = openvino_example.transcribe(build / FP32, path, 3, "ja-JP")
    ours = Recognizer.open(build / FP32, threads=1, language="ja-JP").transcribe_file(path)
    assert (tuple(tokens), text) == (ours.tokens, ours.text)


# --- the package


def test_the_package(made, tmp_path, eval_corpus):
    build = shutil.copytree(made, tmp_path / "build")
    for variant in (FP32, INT8):
        sha256, case = artifact_sha256(build / variant), "all lookaheads: difference"
        write_results(results_path(build, variant), [GateResult("wer", variant, sha256, PASS, case, 0.0, 0.3, "WER points", 9)])
    packed = package(
        build, tmp_path / "dist", [FP32, INT8], licence="apache-2.0", layout="openvino", required_passes=lambda build, variant: []
    )  # fmt: skip
    assert f"{INT8}: loads in openvino" in "\n".join(verify(packed))
    card = (packed / "README.md").read_text()
    assert "`stateful-*`: the encoder runs one stream and keeps its caches" in card and "cache_channel`: [" not in card
    utterance = max(eval_corpus.utterances, key=lambda u: u.seconds)
    tokens, text = openvino_example.transcribe(packed / "stateful-fp32", utterance.path, 6)
    expected = Recognizer.open(packed / "stateful-fp32", 6, threads=1).transcribe_file(utterance.path)
    assert (tuple(tokens), text) == (expected.tokens, expected.text) and len(tokens) > 10
