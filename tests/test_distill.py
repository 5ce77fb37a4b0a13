"""Distillation: what is trained is what the graph computes, and a run that is taken up goes on as if it had never ended."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantizing import CALIBRATION, quiet, short_manifest, snr_db, transcribed

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError, CorpusError, OutputError, UsageError
from nemoport.quantize import build_variant
from nemoport.quantize.blocks import LIMITS, round_nearest
from nemoport.quantize.error_feedback import compensated, inverse_factor
from nemoport.quantize.nbits import FAST_SIZES, packed, store_nbits, unpacked
from nemoport.quantize.storage import halve, store_in_bytes
from nemoport.quantize.student import Student, read_student, write_student
from nemoport.speech.corpus import read_corpus
from nemoport.validate.limits import limits_of

torch = pytest.importorskip("torch")

from nemoport.cli import main  # noqa: E402
from nemoport.distill.checked import distill  # noqa: E402
from nemoport.distill.conditions import Conditions  # noqa: E402
from nemoport.distill.full_pass import FullPassEncoder  # noqa: E402
from nemoport.distill.low_bits import LowBitMatMul  # noqa: E402
from nemoport.distill.posteriors import divergence, greedy_path  # noqa: E402
from nemoport.distill.run import LOG, STUDENT, Distillation  # noqa: E402
from nemoport.distill.settings import Settings  # noqa: E402
from nemoport.export.build import export_checkpoint  # noqa: E402
from nemoport.export.checkpoint import read_checkpoint  # noqa: E402
from nemoport.export.heads import head_graph  # noqa: E402
from nemoport.export.shared import graph_weights  # noqa: E402
from nemoport.frontend import LogMel, mel_filterbank  # noqa: E402
from nemoport.runtimes.onnxruntime.session import OnnxSession  # noqa: E402
from nemoport.stream import Stream, advance  # noqa: E402

FEW = Settings(steps=2, batch_seconds=4.0, row_seconds=2.0, high_share=0.2)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_the_runtime_multiplies_by_what_was_stored(random):
    """Every size of blocks that has a kernel; rounding the activations to 8 bits costs what it costs with 8-bit weights."""
    for size in FAST_SIZES:
        for bits in (2, 4, 8):
            x, weight = random.standard_normal((7, 176)).astype(np.float32), random.standard_normal((176, 48)).astype(np.float32)
            blocks = round_nearest(weight, bits, size)
            node = helper.make_node("MatMul", ["x", "w"], ["y"], "m")
            values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", k]) for name, k in (("x", 176), ("y", 48))]
            graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
            store_nbits(model, {"m": (blocks, bits)})
            assert [len(i.dims) for i in model.graph.initializer] == [3, 2]  # the f32 weight is gone
            run = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run
            assert snr_db(x @ blocks.dequantized(), run(None, {"x": x})[0]) > 38
            again = unpacked(packed(blocks, bits), blocks.scales.T, 176, bits, size)
            assert np.array_equal(again.values, blocks.values) and np.array_equal(again.scales, blocks.scales)


def test_halved_weights_are_folded_when_the_graph_is_loaded(random, tmp_path):
    """The scales of MatMulNBits too: a kernel that reads them in floats takes 15 times as long without."""
    weight = random.standard_normal((256, 512)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "m")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", k]) for name, k in (("x", 256), ("y", 512))]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    store_nbits(model, {"m": (round_nearest(weight, 2, 64), 2)})
    halve(model)
    assert {i.data_type for i in model.graph.initializer} == {TensorProto.UINT8, TensorProto.FLOAT16}
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node] == ["MatMulNBits"]


def test_matrices_in_bytes_are_floats_again_when_the_graph_is_loaded(random, tmp_path):
    """By rows or by columns, whichever is nearer; short rows, and what is named, in half precision, and what neither holds as it
    is."""
    wide = random.standard_normal((96, 1100)) * np.logspace(0, -3, 96)[:, None]
    wide[5] = 0  # a row without a scale
    tall = random.standard_normal((1100, 1100)) * np.logspace(0, -3, 1100)
    others = {"k": random.standard_normal((512, 1, 9)), "s": wide[:64, :64], "large": np.full(2000, 1e6)}
    others["broken"] = np.where(np.arange(96 * 64).reshape(96, 64) == 7, np.nan, 1.0)
    arrays = {name: values.astype(np.float32) for name, values in {"w": wide, "v": tall, **others}.items()}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    nodes += [helper.make_node("Identity", [name], [f"{name}_out"]) for name in others]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", k]) for name, k in (("x", 96), ("y", 1100))]
    values += [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, arrays[name].shape) for name in others]
    weights = [numpy_helper.from_array(one, name) for name, one in arrays.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    store_in_bytes(model, {"s"})
    stored = {i.name: (i.data_type, list(i.dims)) for i in model.graph.initializer}
    assert stored["w.int8"] == (TensorProto.INT8, [96, 1100]) and stored["w.int8.scale"] == (TensorProto.FLOAT, [96, 1])
    assert stored["v.int8.scale"] == (TensorProto.FLOAT, [1, 1100])  # in full, however many there are
    assert {"k.half", "s.half", "large"} < stored.keys() and not {"broken.int8", "w", "v"} & stored.keys()
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert {n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node} <= {"MatMul", "Identity"}
    x = random.standard_normal((5, 96)).astype(np.float32)
    y, k, s, large, _ = session.run(None, {"x": x})
    assert snr_db(x @ arrays["w"] @ arrays["v"], y) > 38
    assert snr_db(arrays["k"], k) > 60 and snr_db(arrays["s"], s) > 60 and np.array_equal(arrays["large"], large)


def test_training_begins_at_the_integers_of_error_feedback(random):
    mixing = random.standard_normal((64, 64)) * np.logspace(0, -2, 64)[:, None]  # most goes on in a few directions
    x, weight = (
        (random.standard_normal((500, 64)) @ mixing).astype(np.float32),
        random.standard_normal((64, 16)).astype(np.float32),
    )
    blocks, before = compensated(weight, inverse_factor(x.T @ x), 2, 32)
    steps = np.repeat(blocks.scales, 32, 0)
    assert np.array_equal(np.clip(np.round(before / steps), *LIMITS[2]), blocks.values)
    assert snr_db(x @ weight, x @ blocks.dequantized()) > snr_db(x @ weight, x @ round_nearest(weight, 2, 32).dequantized()) + 3


def test_gradients_pass_the_rounding():
    """By hand: a weight within the range has its own gradient, one outside has none; each scale has what it does to its block."""
    weight, scale = torch.tensor([[0.6], [5.0], [-1.2], [-9.0]]), torch.tensor([[2.0], [1.0]])
    layer = LowBitMatMul(weight, scale, 2, 2, None)
    assert layer.rounded().flatten().tolist() == [0.0, 2.0, -1.0, -2.0]
    (layer.rounded() * torch.tensor([[1.0], [10.0], [100.0], [1000.0]])).sum().backward()
    assert layer.weight.grad.flatten().tolist() == [1.0, 0.0, 100.0, 0.0]  # 5 / 2 and -9 / 1 are beyond 1 and -2
    assert layer.scales.grad.flatten().tolist() == pytest.approx([-0.3 + 10.0, 100 * 0.2 - 2000.0])
    assert layer.integers().flatten().tolist() == [0, 1, -1, -2]


@pytest.mark.parametrize("lookahead", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_one_pass_gives_the_frames_of_warm_caches(build, reference_checkpoint, lookahead):
    """Under the chunked mask, over 14 s: the left context of 5.6 s is full, and streams have forgotten what is before it."""
    artifact, spec = Artifact.open(build / "fp32"), reference_checkpoint.spec
    samples = np.concatenate([u.samples() for u in read_corpus(CALIBRATION, 16000).utterances[:6]])[: 14 * 16000]
    session, frames = OnnxSession(spec, artifact.encoder, artifact.decoder, threads=1), []
    stream = Stream(session, artifact.filterbank(), lookahead)
    stream.push(samples)
    while stream.chunks:
        frames += advance(session, [stream])
    warm = np.concatenate(frames)
    encoder = FullPassEncoder(graph_weights(reference_checkpoint), spec.streaming)
    mel = torch.from_numpy(LogMel(spec.frontend, artifact.filterbank()).whole(samples)[None])
    with torch.no_grad():
        found, lengths = encoder(mel, torch.tensor([mel.size(2)]), lookahead)
        other, _ = encoder(mel, torch.tensor([mel.size(2)]), 13 if lookahead == 1 else 1)
    assert len(warm) > 150 and int(lengths[0]) >= len(warm)
    assert np.abs(found[0, : len(warm)].numpy() - warm).max() < 1e-4 < np.abs(other[0, : len(warm)].numpy() - warm).max()


def test_the_path_is_what_greedy_decoding_visits(build, reference_checkpoint):
    artifact, spec = Artifact.open(build / "fp32"), reference_checkpoint.spec
    corpus = read_corpus(CALIBRATION, 16000)
    corpus = replace(corpus, utterances=corpus.utterances[:3])
    tokens, frames = zip(
        *(transcribed(artifact, replace(corpus, utterances=(one,)), 13) for one in corpus.utterances), strict=True
    )
    head = head_graph("rnnt").build(graph_weights(reference_checkpoint), spec.decoding)
    counts, rows = list(map(len, frames)), list(map(torch.from_numpy, frames))
    with torch.no_grad():
        encoded = head.enc(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True))
        path = greedy_path(head, spec.decoding, encoded, torch.tensor(counts))
        scores = head.head(torch.relu(encoded[path.streams, path.frames] + path.predicted)).argmax(-1)
        same, other = (float(divergence(head, path, encoded, one)) for one in (encoded, encoded.roll(1, 1)))
    emitted = [scores[(path.streams == i) & (scores != spec.decoding.blank_id)].tolist() for i in range(3)]
    assert emitted == [one for (one,) in tokens] and all(emitted)
    assert len(path.frames) == sum(counts) + sum(map(len, emitted))  # a blank each frame, and each token
    assert abs(same) < 1e-6 < 0.01 < other


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return short_manifest(tmp_path_factory.mktemp("speech"), count=4)


@pytest.fixture(scope="module")
def tiny(random_checkpoint):
    return read_checkpoint(str(random_checkpoint("tiny")))


@pytest.fixture(scope="module")
def trained(tiny, speech, tmp_path_factory):
    """A student after two steps, by the command."""
    folder = tmp_path_factory.mktemp("distilled")
    words = ["--steps", "2", "--batch-seconds", "4", "--row-seconds", "2", "--high-share", "0.2", "--quiet"]
    assert main(["distill", str(tiny.path), "--audio", str(speech), "--out", str(folder), *words]) == 0
    return folder


def test_a_student_becomes_a_variant(trained, tiny, speech, tmp_path):
    """In both cache layouts the graph has the weights that were trained: what the exporter folds is folded into the scales."""
    student, frames = read_student(trained / STUDENT, tiny.sha256), {}
    assert {bits for _, _, bits in student.layers.values()} == {2, 4} and student.steps == 2
    corpus = read_corpus(speech, 16000)
    corpus = replace(corpus, utterances=corpus.utterances[:1])
    for layout, variant in (("nemo", "int2-weight"), ("kv", "kv-int2-weight")):
        exact = export_checkpoint(tiny, tmp_path, layout)
        words = ["quantize", variant, "--build", str(tmp_path), "--student", str(trained / STUDENT), "--quiet"]
        assert main(words) == main(words) == 0
        artifact = Artifact.open(tmp_path / variant)
        assert artifact.manifest.corpus_digest == student.corpus_digest
        frames[variant], frames[layout] = transcribed(artifact, corpus, 13)[1], transcribed(exact, corpus, 13)[1]
    with torch.no_grad():
        own = Distillation(tiny, read_corpus(speech, 16000), trained, FEW, "cpu", quiet)
        own._resume()
        mel = torch.from_numpy(LogMel(tiny.spec.frontend, exact.filterbank()).whole(corpus.utterances[0].samples())[None])
        found = own.student(mel, torch.tensor([mel.size(2)]), 13)[0][0].numpy()[: len(frames["kv"]) - 14]
    apart = {name: snr_db(found, one[: len(found)]) for name, one in frames.items()}
    assert min(apart["int2-weight"], apart["kv-int2-weight"]) > 30 > max(apart["nemo"], apart["kv"]) + 5, apart


def test_conditions_are_what_audio_under_them_gives(tiny, speech, random):
    """A level exactly; noise in the mean of each band, for white noise or for pink."""
    spec, samples = tiny.spec.frontend, np.concatenate([u.samples() for u in read_corpus(speech, 16000).utterances])
    conditions, compute = Conditions(spec, 0), LogMel(spec, mel_filterbank(spec))
    frames = compute.whole(samples).T
    lower = compute.whole(samples * np.float32(0.1)).T
    assert np.abs(conditions.lower(frames, 20.0) - lower).max() < 0.01 < 1 < np.abs(frames - lower).mean()
    noisy = np.stack([conditions.noisy(frames, -40.0, np.random.default_rng(i)) for i in range(4)])
    noise = compute.whole(random.standard_normal(len(samples)).astype(np.float32)).T
    spectra = [np.log(np.exp(one).mean(0)) for one in (*noisy, noise)]
    white, *others = sorted(np.std(one - spectra[-1]) for one in spectra[:-1])
    assert white < 0.2 < 0.5 < others[-1]
    loud = np.log(np.exp(conditions.noisy(frames, 0.0, random)).mean() / np.exp(frames).mean())
    assert abs(loud - np.log(2)) < 0.01
    batches = [
        Distillation(tiny, read_corpus(speech, 16000), speech.parent, replace(FEW, noisy_share=share), "cpu", quiet)._batch(3).mel
        for share in (0.0, 0.0, 1.0)
    ]
    assert np.array_equal(*batches[:2]) and not np.array_equal(*batches[1:])


def stopped(distillation, step, monkeypatch):
    """Ctrl-C comes when so many steps are done."""
    train = distillation._train

    def interrupted(optimizer):
        if distillation.step == step:
            raise KeyboardInterrupt
        return train(optimizer)

    monkeypatch.setattr(distillation, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distillation.run(resume=False)


def test_a_run_that_is_taken_up_ends_where_it_would_have(trained, speech, tiny, tmp_path, monkeypatch):
    corpus = read_corpus(speech, 16000)
    stopped(Distillation(tiny, corpus, tmp_path, FEW, "cpu", quiet), 1, monkeypatch)
    assert read_student(tmp_path / STUDENT, tiny.sha256).steps == 1
    distill(tiny, speech, tmp_path, FEW, resume=True)
    whole, resumed = (np.load(folder / STUDENT) for folder in (trained, tmp_path))
    assert whole.files == resumed.files and all(np.array_equal(whole[name], resumed[name]) for name in whole.files)
    last = [json.loads((folder / LOG).read_text().splitlines()[-1]) for folder in (trained, tmp_path)]
    assert last[0] == last[1]


def test_training_lowers_the_loss(tiny, speech, tmp_path, monkeypatch):
    """On one batch again and again."""
    settings = replace(FEW, steps=30, warm_up=1, high_share=0.0)
    distillation, losses = Distillation(tiny, read_corpus(speech, 16000), tmp_path, settings, "cpu", quiet), []
    batch, train = distillation.batches.at(7, 4.0, 2.0), distillation._train
    monkeypatch.setattr(distillation, "_batch", lambda step: batch)
    monkeypatch.setattr(distillation, "_train", lambda optimizer: losses.append(train(optimizer)) or losses[-1])
    distillation.run(resume=False)
    assert losses[-1]["frames"] < 0.9 * losses[0]["frames"] and losses[-1]["layers"] < losses[0]["layers"]


@pytest.mark.parametrize("preset", ["tiny-streaming-ctc", pytest.param("tiny-multilingual", marks=pytest.mark.slow)])
def test_other_streaming_kinds(random_checkpoint, speech, tmp_path, preset):
    checkpoint = read_checkpoint(str(random_checkpoint(preset)))
    rows = [json.loads(line) for line in speech.read_text().splitlines()]
    language = next(iter(checkpoint.spec.prompt.languages)) if checkpoint.spec.prompt else "en"
    manifest = tmp_path / "speech.jsonl"
    manifest.write_text("".join(json.dumps(row | {"lang": language}) + "\n" for row in rows))
    path = distill(checkpoint, manifest, tmp_path, replace(FEW, steps=1, high_share=0.0))
    assert len(read_student(path, checkpoint.sha256).layers) == 10 * checkpoint.spec.encoder.n_layers


@pytest.mark.parametrize(
    ("case", "error", "match"),
    [
        ("again", OutputError, "--resume"),
        ("other settings", OutputError, "another distillation"),
        ("nothing to resume", OutputError, "nothing to go on with"),
        ("no audio", CorpusError, "no audio"),
        ("offline", UsageError, "cache-aware"),
        ("device", UsageError, "no device"),
        ("settings", UsageError, "rate 0"),
    ],
)
def test_unusable_input(case, error, match, trained, speech, tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    offline = replace(tiny, spec=replace(tiny.spec, kind="offline-rnnt", streaming=None))
    run = partial(distill, tiny, speech, trained, FEW)
    calls = {
        "again": run,
        "other settings": partial(distill, tiny, speech, trained, replace(FEW, seed=1), resume=True),
        "nothing to resume": partial(distill, tiny, speech, tmp_path, FEW, resume=True),
        "no audio": partial(distill, tiny, tmp_path / "empty", tmp_path, FEW),
        "offline": partial(distill, offline, speech, tmp_path, FEW),
        "device": partial(run, device="teapot"),
        "settings": lambda: replace(FEW, rate=0.0),
    }
    with pytest.raises(error, match=match):
        calls[case]()


def student_of(sha256="0" * 64, **changes):
    values = np.array([[-2, 1], [0, -1]] * 16, np.int8)
    fields = {"layers": {"layers.0.conv.pointwise_conv1": (values, np.ones((1, 2), np.float32), 2)}, "norms": {}, **changes}
    return Student(sha256, "1" * 64, 7, 32, fields["layers"], fields["norms"])


def test_students_that_cannot_be_used(tmp_path, build):
    path = tmp_path / STUDENT
    write_student(path, student_of())
    assert [one.tolist() for one in read_student(path, "0" * 64).layers["layers.0.conv.pointwise_conv1"][:2]] == [
        one.tolist() for one in student_of().layers["layers.0.conv.pointwise_conv1"][:2]
    ]
    with pytest.raises(ArtifactError, match="another checkpoint"):
        read_student(path, "2" * 64)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_student(path, "0" * 64)
    values, scales, _ = student_of().layers["layers.0.conv.pointwise_conv1"]
    write_student(path, student_of(layers={"x": (values, scales * np.nan, 2)}))
    with pytest.raises(ArtifactError, match="not finite"):
        read_student(path, "0" * 64)
    np.savez(path, other=values)
    with pytest.raises(ArtifactError, match="no student"):
        read_student(path, "0" * 64)
    write_student(path, student_of(Artifact.open(build / "fp32").manifest.checkpoint_sha256))
    copy = shutil.copytree(build, tmp_path / "build")
    with pytest.raises(ArtifactError, match="another model"):
        build_variant(copy, "int2-weight", None, path, progress=quiet)
    with pytest.raises(UsageError, match="not made of a student"):
        build_variant(copy, "int8-weight", None, path, progress=quiet)
    assert sorted(one.name for one in copy.iterdir() if one.name.startswith("int")) == []


@pytest.mark.slow
def test_the_gates_refuse_what_was_not_trained(build, speech, tmp_path):
    """Rounding with error feedback, which needs no student, leaves frames that gate `numeric` refuses."""
    copy = shutil.copytree(build, tmp_path / "build")
    rounded = build_variant(copy, "int2-weight", CALIBRATION, progress=quiet)
    corpus = read_corpus(speech, 16000)
    frames = [transcribed(artifact, corpus, 13)[1] for artifact in (Artifact.open(copy / "fp32"), rounded)]
    assert 10 ** (-snr_db(*frames) / 20) > limits_of("int2-weight").get("numeric", "max_rms_ratio")
