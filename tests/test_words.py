"""Words, their times and their confidence are NeMo's own."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nemoport import formats
from nemoport.confidence import MEASURES, Confidence, log_softmax
from nemoport.errors import UsageError
from nemoport.export.checkpoint import read_checkpoint
from nemoport.long_audio import Timed
from nemoport.recognizer import Recognizer
from nemoport.tokens import detokenize, split_tags
from nemoport.transcription import Hypothesis
from nemoport.words import Word, WordTimes, punctuation_of, segments_of, words_of

ROOT = Path(__file__).resolve().parent.parent
nemo = pytest.importorskip("nemoport.validate.nemo")


@pytest.fixture(scope="module")
def tdt_checkpoint():
    """Its vocabulary has punctuation."""
    return read_checkpoint(str(ROOT / "reference" / "checkpoints" / "offline-tdt.nemo"))


@pytest.fixture(scope="module")
def tdt(tdt_checkpoint):
    return tdt_checkpoint, nemo.restore(tdt_checkpoint)


@pytest.fixture(scope="module")
def rnnt(reference_checkpoint):
    return reference_checkpoint, nemo.restore(reference_checkpoint)


def timed(tokens: Sequence[int], frames: Sequence[int], durations: Sequence[int], frame_s=0.08) -> Timed:
    return Timed(tuple(tokens), tuple(f * frame_s for f in frames), tuple(d * frame_s for d in durations), (0.5,) * len(tokens))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("head", ["tdt", "rnnt"])
def test_words_and_their_times_are_nemos(head, seed, request):
    from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis as NemoHypothesis

    checkpoint, model = request.getfixturevalue(head)
    pieces, rng = list(checkpoint.tokens), np.random.default_rng(seed)
    words = [i for i, piece in enumerate(pieces) if piece.startswith("\u2581")]
    marks = [i for i, piece in enumerate(pieces) if piece in punctuation_of(pieces)]
    others = [i for i in range(len(pieces)) if pieces[i] != "<unk>"]
    tokens, frame, frames, durations = [], 0, [], []
    for _ in range(rng.integers(1, 30)):
        kind = [words, marks, others, [pieces.index("\u2581")]][rng.choice(4, p=[0.3, 0.2, 0.4, 0.1])]
        token = int(rng.choice(kind))
        frame += int(rng.integers(0, 12))
        tokens, frames, durations = [*tokens, token], [*frames, frame], [*durations, int(rng.integers(0, 5))]
    hypothesis = NemoHypothesis(score=0.0, y_sequence=tokens, timestamp=frames, token_duration=durations)
    offsets = model.decoding.compute_rnnt_timestamps(hypothesis, timestamp_type="all").timestamp
    expected = [(w["word"], w["start_offset"], w["end_offset"]) for w in offsets["word"] if w["word"].strip()]
    found = words_of(timed(tokens, frames, durations), pieces, punctuation_of(pieces), checkpoint.spec)
    assert [(w.text, round(w.start / 0.08), round(w.end / 0.08)) for w in found] == expected
    if all(w["word"].strip() for w in offsets["word"]):  # NeMo makes empty words of two spaces
        assert [s.text for s in segments_of(found)] == [s["segment"] for s in offsets["segment"]]


def test_confidence_and_times_are_those_of_nemos_own_run(build, rnnt, eval_corpus):
    """Greedy, by the batch, with NeMo's confidence of words and tokens, over whole utterances."""
    import torch
    from omegaconf import OmegaConf

    _, model = rnnt
    default = OmegaConf.to_container(model.cfg.decoding)
    confidence = {"preserve_word_confidence": True, "preserve_token_confidence": True, "aggregation": "min"}
    decoding = OmegaConf.create({**default, "compute_timestamps": True, "confidence_cfg": confidence})
    compared = 0
    try:
        with nemo.quiet():
            model.change_decoding_strategy(decoding, verbose=False)
        recognizer = Recognizer.open(build / "fp32", 6, confidence="entropy_tsallis_exp")  # NeMo's default measure
        with nemo.exact(model):
            model.encoder.set_default_att_context_size([model.encoder.att_context_size_all[0][0], 6])
            for utterance in eval_corpus.utterances[:5]:
                samples = utterance.samples()
                encoded, length = model.forward(
                    input_signal=torch.from_numpy(samples)[None], input_signal_length=torch.tensor([len(samples)])
                )
                expected = model.decoding.rnnt_decoder_predictions_tensor(encoded, length, return_hypotheses=True)[0]
                (found,) = recognizer.transcribe([("a", samples)])
                assert found.tokens == tuple(expected.y_sequence.tolist())
                np.testing.assert_allclose(found.token_confidences, expected.token_confidence, atol=2e-4)
                np.testing.assert_allclose([w.confidence for w in found.words], expected.word_confidence, atol=2e-4)
                words = expected.timestamp["word"]
                assert [w.text for w in found.words] == [w["word"] for w in words]
                np.testing.assert_allclose([w.start for w in found.words], [w["start_offset"] * 0.08 for w in words])
                np.testing.assert_allclose([w.end for w in found.words], [w["end_offset"] * 0.08 for w in words])
                compared += len(words)
    finally:
        model.change_decoding_strategy(OmegaConf.create(default), verbose=False)
    assert compared > 20


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("size", [30, 1025])
def test_measures_are_nemos(name, size):
    import torch
    from nemo.collections.asr.parts.utils.asr_confidence_utils import get_confidence_measure_bank

    rng = np.random.default_rng(0)
    for spread in (0.1, 1.0, 5.0, 20.0):
        row = log_softmax((rng.normal(size=size) * spread).astype(np.float32))
        expected = get_confidence_measure_bank()[name](torch.from_numpy(row), size, MEASURES[name][1]).item()
        assert Confidence(name).of(row, int(row.argmax())) == pytest.approx(max(expected, 0), abs=2e-6)


def test_probability_is_that_of_the_token_which_a_beam_chose():
    row = np.log(np.array([0.7, 0.2, 0.1], np.float32))
    assert Confidence("max_prob").of(row, 1) == 0.0  # less than by chance: a third
    assert Confidence("max_prob").of(row, 0) == pytest.approx((0.7 * 3 - 1) / 2)


def test_unknown_measure_is_refused(build):
    with pytest.raises(UsageError, match="no such measure"):
        Recognizer.open(build / "fp32", confidence="entropy")


def test_a_beam_has_confidence_and_words(build, eval_corpus):
    samples = eval_corpus.utterances[0].samples()
    (greedy,) = Recognizer.open(build / "fp32").transcribe([("a", samples)])
    (beam,) = Recognizer.open(build / "fp32", beam=3).transcribe([("a", samples)])
    assert len(beam.token_confidences) == len(beam.tokens) and all(0 <= c <= 1 for c in beam.token_confidences)
    if beam.tokens == greedy.tokens and beam.token_seconds == greedy.token_seconds:
        np.testing.assert_allclose(beam.token_confidences, greedy.token_confidences, atol=1e-5)


def test_words_come_as_they_are_complete_and_are_those_of_the_whole(tdt_checkpoint):
    pieces, spec = list(tdt_checkpoint.tokens), tdt_checkpoint.spec
    rng = np.random.default_rng(1)
    tokens = [int(t) for t in rng.choice([i for i, p in enumerate(pieces) if p != "<unk>"], 60)]
    whole = timed(tokens, range(60), [1] * 60)
    expected = words_of(whole, pieces, punctuation_of(pieces), spec)
    for size in (1, 2, 7):
        live = WordTimes(pieces, punctuation_of(pieces), spec)
        found = [word for at in range(0, 60, size) for word in live.feed(whole.slice(at, at + size))]
        assert len(found) >= len(expected) - 1
        assert (*found, *live.finish()) == expected


def test_words_are_those_of_the_text_with_bytes_and_tags(reference_checkpoint):
    """Characters of several byte pieces, the unknown piece, double spaces, and tags of a model with a prompt, in any order."""
    from nemoport.prompt import PromptSpec

    spec = replace(reference_checkpoint.spec, prompt=PromptSpec(2, {"en-US": 0}))
    pieces = ["\u2581a", "b", "\u2581", "<0xE2>", "<0x82>", "<0xAC>", "<unk>", "<en-US>", "\u2581c\u2581d", "."]
    rng = np.random.default_rng(2)
    for _ in range(200):
        tokens = [int(t) for t in rng.integers(0, len(pieces), rng.integers(0, 12))]
        text, _ = split_tags(detokenize(pieces, tokens))
        found = words_of(timed(tokens, range(len(tokens)), [0] * len(tokens)), pieces, frozenset("."), spec)
        assert "".join(w.text for w in found) == text.replace(" ", "")
        if 7 not in tokens:  # a tag takes the spaces before it from the text, words keep apart there
            joined = " ".join(w.text for w in found).replace(" .", ".")
            assert joined.split() == " ".join(text.split()).replace(" .", ".").split(), (tokens, text)
        assert all(a.start <= b.start and a.start <= a.end for a, b in zip(found, found[1:], strict=False))


def test_opening_marks_belong_to_the_word_behind_them(tdt_checkpoint):
    pieces = ["\u2581hola", ",", "\u2581", "\u00bf", "que", "\u2581tal", "?", "("]
    assert punctuation_of(pieces) == frozenset(",?")
    tokens = [0, 1, 2, 3, 4, 5, 6]
    found = words_of(timed(tokens, range(7), [1] * 7), pieces, punctuation_of(pieces), tdt_checkpoint.spec)
    assert [w.text for w in found] == ["hola,", "\u00bfque", "tal?"] == detokenize(pieces, tokens).split()


def word(text: str, start: float, end: float) -> Word:
    return Word(text, start, end, 0.9)


def hypothesis(words: Sequence[Word]) -> Hypothesis:
    text = " ".join(w.text for w in words)
    return Hypothesis("a", text, (), (), (), (), (), tuple(words), segments_of(words), 9.0, 0.1)


SPOKEN = [word("Good", 0.2, 0.4), word("morning.", 0.4, 0.9), word("a", 3.0, 3.1), word("<b>", 3.1, 3723.5)]


def test_subtitles():
    assert formats.as_srt(hypothesis(SPOKEN)) == (
        "1\n00:00:00,200 --> 00:00:01,200\nGood morning.\n\n"
        "2\n00:00:03,000 --> 00:00:03,100\na\n\n"
        "3\n00:00:03,100 --> 01:02:03,500\n<b>\n"
    )
    assert formats.as_vtt(hypothesis(SPOKEN)).startswith("WEBVTT\n\n00:00:00.200 --> 00:00:01.200\nGood morning.\n\n")
    assert "&lt;b&gt;" in formats.as_vtt(hypothesis(SPOKEN))
    assert formats.as_tsv(hypothesis(SPOKEN)) == "start\tend\ttext\n200\t900\tGood morning.\n3000\t3723500\ta <b>\n"
    assert formats.as_srt(hypothesis([])) == "" and formats.as_vtt(hypothesis([])) == "WEBVTT\n"


def test_cues_are_short_and_lose_no_word():
    rng = np.random.default_rng(3)
    words, at = [], 0.0
    for number in range(300):
        length = float(rng.uniform(0.05, 0.8))
        words.append(word("w" * int(rng.integers(1, 12)) + str(number), at, at + length))
        at += length + float(rng.choice([0.0, 0.1, 2.0], p=[0.5, 0.4, 0.1]))
    found = formats.cues(words)
    assert [w.text for cue in found for w in cue.words] == [w.text for w in words]
    assert all(a.end <= b.start for a, b in zip(found, found[1:], strict=False))
    assert all(cue.end - cue.start <= formats.LONGEST_S + 0.8 for cue in found)
    assert max(map(len, formats.as_srt(hypothesis(words)).split("\n"))) <= 42
    assert all(len(block.split("\n")) <= 4 for block in formats.as_srt(hypothesis(words)).strip().split("\n\n"))


def test_pauses_divide_segments_where_they_are_asked_for():
    assert [s.text for s in segments_of(SPOKEN)] == ["Good morning.", "a <b>"]
    assert [s.text for s in segments_of(SPOKEN[:1] + SPOKEN[2:], 1.0)] == ["Good", "a <b>"]
    assert segments_of([]) == ()


def test_json_has_words_and_round_times():
    fields = json.loads(formats.as_json(hypothesis([word("a", 35 * 0.08, 36 * 0.08)])))
    assert fields["words"] == [{"text": "a", "start": 2.8, "end": 2.88, "confidence": 0.9}]
    assert fields["segments"] == [{"text": "a", "start": 2.8, "end": 2.88}]


def test_the_plot_has_a_line_for_each_variant_and_escapes_names():
    from xml.etree import ElementTree

    from nemoport.validate.gate_result import GateResult
    from nemoport.validate.reliability_plot import reliability_plot

    def result(case, measured, n):
        return GateResult("words", "a<b", "", "pass", case, measured, n=n)

    bins = [result("right at confidence 0.2 to 0.3", 0.5, 7), result("right at confidence 0.9 to 1.0", 1.0, 90)]
    plot = reliability_plot({"a<b": [*bins, result("same time", 1.0, 9)], "none": []})
    root = ElementTree.fromstring(plot)
    (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    assert [float(v) for v in line.get("points").replace(",", " ").split()] == [130.0, 176.0, 354.0, 16.0]
    assert "a&lt;b: 7 words" in plot and ">none<" not in plot
    assert reliability_plot({"a": [result("same time", 1.0, 9)]}) == ""
