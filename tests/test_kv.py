"""The kv contract: caches that slide over a buffer, and what the gates say of a graph that mixes them up."""

import copy
import shutil
from dataclasses import replace

import damage
import numpy as np
import onnx
import pytest
from onnx import helper
from quantizing import short_manifest

from nemoport.artifact import ENCODER, Artifact
from nemoport.cache_layout import KV, cache_layout_of, caches_of, precision_of, variant_of
from nemoport.caches import NemoCaches
from nemoport.caches_kv import CACHED, KvCaches
from nemoport.errors import ArtifactError, UsageError
from nemoport.export.build import export_checkpoint
from nemoport.package.examples import native as native_example
from nemoport.quantize import build_variant
from nemoport.quantize.graph import load_typed
from nemoport.quantize.smoothing import sites
from nemoport.recognizer import Recognizer
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.spec import StreamingSpec
from nemoport.validate import gates, limits
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, PASS

KV_FP32 = "kv-fp32"
SMALL = StreamingSpec(
    n_layers=2, d_model=6, n_heads=3, left_context_enc_frames=5, lookaheads=(0, 1), conv_cache_frames=4,
    subsampling_factor=8, pre_encode_cache_mel_frames=9,
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("fewer_streams")


def outputs(rng, frames, batch):
    """What a graph of SMALL gives behind its caches."""
    shapes = [shape[2:] for name, shape in KvCaches.shapes(SMALL, batch).items() if name != "cache_len"]
    return [rng.normal(size=(frames, batch, *shape)).astype(np.float32) for shape in shapes]


def followed(history, initial):
    """{input: array}: the last frames of zeros and all that came."""
    names = list(initial.feeds())[:-1]
    order = [f"cache_{name}_{layer}" for layer in range(SMALL.n_layers) for name in CACHED]
    joined = {n: np.concatenate([initial.feeds()[n], *(new[order.index(n)] for new in history)]) for n in names}
    return {name: joined[name][-len(initial.feeds()[name]) :] for name in names}


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 9])
def test_the_window_holds_the_last_frames(frames):
    """Chunks shorter and longer than the caches, far past the end of the buffer."""
    rng, history = np.random.default_rng(frames), []
    initial = state = KvCaches.initial(SMALL, 2)
    for step in range(1, 20):
        history.append(outputs(rng, frames, 2))
        state = state.advance(history[-1])
        expected = followed(history, KvCaches.initial(SMALL, 2))
        assert state.length.tolist() == [min(5, step * frames)] * 2
        assert all(np.array_equal(state.feeds()[name], array) for name, array in expected.items())
    assert initial.length.tolist() == [0, 0]


def test_a_second_continuation_does_not_overwrite_the_first():
    rng = np.random.default_rng(0)
    start = KvCaches.initial(SMALL, 1)
    first, second = outputs(rng, 2, 1), outputs(rng, 2, 1)
    one, two = start.advance(first), start.advance(second)
    for state, new in ((one, first), (two, second)):
        expected = followed([new], KvCaches.initial(SMALL, 1))
        assert all(np.array_equal(state.feeds()[name], array) for name, array in expected.items())


def test_an_abandoned_state_is_refused_and_its_copy_is_not():
    rng, state = np.random.default_rng(0), KvCaches.initial(SMALL, 1)
    old, kept = state, copy.deepcopy(state)
    for _ in range(4):
        state = state.advance(outputs(rng, 2, 1))
    with pytest.raises(ArtifactError, match="older one"):
        old.feeds()
    assert not kept.feeds()["cache_key_0"].any()


def test_streams_join_and_leave():
    """A batch that stays together is not copied; another one holds each stream's own frames."""
    rng = np.random.default_rng(1)
    batch = KvCaches.initial(SMALL, 3).advance(outputs(rng, 2, 3))
    assert KvCaches.stack(batch.rows()) is batch
    late = KvCaches.initial(SMALL, 1)
    rows = [batch.rows()[2], late.rows()[0], batch.rows()[0]]
    joined = KvCaches.stack(rows)
    assert joined.length.tolist() == [2, 0, 2]
    for name, cache in batch.feeds().items():
        if name != "cache_len":
            assert np.array_equal(joined.feeds()[name][:, [0, 2]], cache[:, [2, 0]])
            assert not joined.feeds()[name][:, 1].any()


def test_names():
    assert variant_of(KV, "int8-weight") == "kv-int8-weight"
    assert (cache_layout_of("kv-fp16"), precision_of("kv-fp16")) == (KV, "fp16")
    assert caches_of(KvCaches.shapes(SMALL, 1)) is KvCaches
    assert caches_of(NemoCaches.shapes(SMALL, 1)) is NemoCaches
    assert limits.limits_of("kv-int8-weight").gates == limits.limits_of("int8-weight").gates


@pytest.fixture(scope="module")
def kv_build(build, reference_checkpoint, tmp_path_factory):
    folder = damage.copy_build(build, tmp_path_factory.mktemp("kv") / "build")
    export_checkpoint(reference_checkpoint, folder, KV)
    return folder


@pytest.fixture
def kv_copy(kv_build, tmp_path):
    return damage.copy_build(kv_build, tmp_path / "build")


@pytest.fixture(scope="module")
def context_of(reference_checkpoint, eval_corpus, oracle):
    def make(build, lookaheads=(6, 0), variant=KV_FP32):
        spec = reference_checkpoint.spec
        spec = replace(spec, streaming=replace(spec.streaming, lookaheads=lookaheads))
        checkpoint = replace(reference_checkpoint, spec=spec)
        return Context(build / variant, limits.limits_of(variant), checkpoint, eval_corpus, oracle, threads=1)

    return make


def failing(context, *names):
    return [name for name in names if any(r.status == FAIL for r in gates.run_gate(name, context))]


def edit_graph(build, edit):
    folder = build / KV_FP32
    model = onnx.load(folder / ENCODER)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    edit(model)
    damage.save_model(model, folder / ENCODER, metadata)
    damage.seal(folder)


def test_unknown_contract_is_refused(reference_checkpoint, tmp_path):
    with pytest.raises(UsageError, match="cache layout 'kw'"):
        export_checkpoint(reference_checkpoint, tmp_path, "kw")


def test_kv_passes_its_gates(kv_build, context_of, reference_checkpoint):
    whole = context_of(kv_build, reference_checkpoint.spec.streaming.lookaheads)
    assert {r.status for r in gates.run_gate("contract", whole)} == {PASS}
    assert failing(context_of(kv_build), "numeric", "tokens", "wer", "boundary", "batch", "cost") == []


@pytest.mark.parametrize("variant", ["fp32", KV_FP32])
def test_the_cards_example_hears_the_same(kv_build, variant, eval_corpus):
    """onnxruntime alone, by config.json: an utterance that outlasts the left context."""
    utterance = max(eval_corpus.utterances, key=lambda u: u.seconds)
    tokens, text = native_example.transcribe(kv_build, variant, utterance.path, 6)
    expected = Recognizer.open(kv_build / variant, 6, threads=1).transcribe_file(utterance.path)
    assert (tuple(tokens), text) == (expected.tokens, expected.text)
    assert len(tokens) > 10


def test_layers_whose_caches_are_swapped_are_rejected(kv_copy, context_of):
    def swap(model):
        names = {"key_new_0": "key_new_1", "key_new_1": "key_new_0"}
        for node in model.graph.node:
            node.output[:] = [names.get(name, name) for name in node.output]
            node.input[:] = [names.get(name, name) for name in node.input]

    edit_graph(kv_copy, swap)
    assert failing(context_of(kv_copy), "numeric", "tokens") == ["numeric", "tokens"]


def test_only_batch_finds_streams_that_mix(kv_copy, context_of):
    """Each stream gets its neighbour's keys, where it has one."""

    def roll(model):
        name = "key_new_0"
        for node in model.graph.node:
            node.output[:] = [f"{name}_raw" if o == name else o for o in node.output]
            node.input[:] = [f"{name}_raw" if i == name else i for i in node.input]
        for key, value in (("zero", [0]), ("one", [1]), ("end", [2**31 - 1])):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.int64), key))
        model.graph.node.extend(
            [
                helper.make_node("Slice", [f"{name}_raw", "one", "end", "one"], ["tail"]),
                helper.make_node("Slice", [f"{name}_raw", "zero", "one", "one"], ["head"]),
                helper.make_node("Concat", ["tail", "head"], [name], axis=1),
            ]
        )

    edit_graph(kv_copy, roll)
    context = context_of(kv_copy, (6,))
    context.limits = replace(context.limits, streams=1)
    assert failing(context, "batch", "tokens") == ["batch"]


def test_caches_that_do_not_slide_are_rejected(kv_build, context_of, monkeypatch):
    monkeypatch.setattr(KvCaches, "advance", lambda self, outputs: self)
    assert failing(context_of(kv_build), "tokens", "numeric") == ["tokens", "numeric"]


@pytest.mark.parametrize("precision", ["smoothed", "int8-dynamic", "int8-weight"])
def test_recipes_reach_what_they_reach_of_the_other_contract(kv_build, precision, tmp_path):
    """The same tensors are smoothed and fold into the same nodes; the decoder is the same file."""
    build = damage.copy_build(kv_build, tmp_path / "build")
    made = build_variant(build, variant_of(KV, precision), short_manifest(tmp_path), progress=lambda line: None)
    assert made.manifest.recipe.variant == f"kv-{precision}"
    fp32 = Artifact.open(build / KV_FP32)
    ours, theirs = sites(load_typed(fp32.encoder)), sites(load_typed(Artifact.open(build / "fp32").encoder))
    assert [(s.matmuls, s.folds_into) for s in ours] == [(s.matmuls, s.folds_into) for s in theirs]
    frames = []
    for artifact in (fp32, made):
        session, rng = OnnxSession.open(artifact, threads=1), np.random.default_rng(0)
        state, transcribed = session.initial_state(1), []
        for _ in range(12):
            chunk, state = _chunk(session, rng, state)
            transcribed.append(chunk)
        frames.append(np.concatenate(transcribed))
    error = np.abs(frames[0] - frames[1]).max()
    assert error == 0 if precision == "smoothed" else 0 < error < 1.0
    shutil.rmtree(build)


def _chunk(session, rng, state):
    size = session.spec.streaming.window_mel_frames(6, first=False)
    mel = rng.normal(-8, 2, (1, session.spec.frontend.n_mels, size)).astype(np.float32)
    frames, _, state = session.encode(mel, np.array([size]), state)
    return frames[0], state
