"""Words, their confidence and their formats, against values that are worked out here: none needs NeMo or a build."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import samples

from nemoport import formats
from nemoport.confidence import DEFAULT_CONFIDENCE, MEASURES, Confidence, log_softmax
from nemoport.errors import UsageError
from nemoport.long_audio import Timed
from nemoport.prompt import PromptSpec
from nemoport.spec import ModelSpec
from nemoport.transcription import Hypothesis
from nemoport.words import Segment, Word, WordTimes, punctuation_of, segments_of, words_of

# Confidence: 1 less the entropy, as a share of the largest one or its exponential, by its definition.


def gibbs(p, a):
    return -sum(x**a * math.log(x**a) for x in p)


def tsallis(p, a):
    return (1 - sum(x**a for x in p)) / (a - 1)


def renyi(p, a):
    return math.log(sum(x**a for x in p)) / (1 - a)


ENTROPIES = {"gibbs": gibbs, "tsallis": tsallis, "renyi": renyi}
DISTRIBUTIONS = ([0.7, 0.2, 0.1], [0.25, 0.25, 0.3, 0.2], [0.01, 0.98, 0.005, 0.005], [1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("p", DISTRIBUTIONS, ids=str)
@pytest.mark.parametrize("entropy", ENTROPIES)
def test_a_measure_is_one_less_an_entropy(entropy, p):
    found, most = (ENTROPIES[entropy](one, 0.33) for one in (p, [1 / len(p)] * len(p)))
    row = np.log(np.array(p, np.float64))
    for token in range(len(p)):
        assert Confidence(f"entropy_{entropy}_lin").of(row, token) == pytest.approx(max(1 - found / most, 0), abs=1e-9)
        exponential = max((math.exp(-found) - math.exp(-most)) / (1 - math.exp(-most)), 0)
        assert Confidence(f"entropy_{entropy}_exp").of(row, token) == pytest.approx(exponential, abs=1e-9)


def test_the_default_measure_is_the_probability_of_the_emitted_token():
    assert Confidence("max_prob") == DEFAULT_CONFIDENCE and [*MEASURES] == [
        "max_prob", *(f"entropy_{name}_{how}" for name in ENTROPIES for how in ("lin", "exp")),
    ]  # fmt: skip
    row = np.log(np.array([0.7, 0.3]))
    assert [Confidence().of(row, token) for token in (0, 1)] == pytest.approx([0.4, 0.0])
    assert Confidence().of(np.array([0.0, -np.inf]), 0) == 1.0 and Confidence().of(np.array([1e-3, -99.0]), 0) == 1.0
    with pytest.raises(UsageError, match="no such measure") as error:
        Confidence("entropy")
    assert (error.value.expected, error.value.found) == (", ".join(MEASURES), "entropy")


def test_log_softmax_is_over_the_last_axis_and_of_any_size():
    scores = np.array([[1.0, 2.0, 4.0], [1000.0, 0.0, 1000.0]])
    exact = np.exp(scores[0]) / np.exp(scores[0]).sum()
    assert np.exp(log_softmax(scores)[0]) == pytest.approx(exact)
    assert np.exp(log_softmax(scores)[1]) == pytest.approx([0.5, 0.0, 0.5])


# Words

RNNT = ModelSpec.from_dict(samples.SPEC)
TDT = replace(RNNT, decoding=replace(RNNT.decoding, durations=(0, 1, 2, 4)))
PROMPT = replace(RNNT, prompt=PromptSpec(4, {"de": 1}))
PIECES = [
    "\u2581a",
    "b",
    "\u2581",
    "\u2581c\u2581d",
    ".",
    "<de-DE>",
    "<0xE2>",
    "<0x82>",
    "<0xAC>",
    "\u2581<de-DE>",
    "c\u2581",
    "\u2581,",
]
MARKS = frozenset(".,")
A, B, SPACE, CD, DOT, TAG, E2, X82, AC, SPACED_TAG, C_SPACE, COMMA = range(12)


def timed(*tokens, duration=2):
    """Tokens on frames 1, 3, 5, ... of which each lasts `duration` frames."""
    n = len(tokens)
    confidences = tuple(round(0.9 - 0.1 * i, 1) for i in range(n))
    return Timed(tokens, tuple(round(0.08 + 0.16 * i, 2) for i in range(n)), (0.08 * duration,) * n, confidences)


def shown(spec, *tokens, duration=2):
    found = words_of(timed(*tokens, duration=duration), PIECES, MARKS, spec)
    return [(w.text, round(w.start / 0.08), round(w.end / 0.08), w.confidence) for w in found]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ((A, B, A), [("ab", 1, 4, 0.8), ("a", 5, 6, 0.7)]),
        ((B, B, A), [("bb", 1, 4, 0.8), ("a", 5, 6, 0.7)]),
        ((A, DOT, A), [("a.", 1, 4, 0.8), ("a", 5, 6, 0.7)]),
        ((A, SPACE, DOT), [("a", 1, 2, 0.9), (".", 3, 6, 0.7)]),
        ((A, SPACE, B), [("a", 1, 2, 0.9), ("b", 3, 6, 0.7)]),
        ((CD, B), [("c", 1, 2, 0.9), ("db", 1, 4, 0.8)]),
        ((A, CD), [("a", 1, 2, 0.9), ("c", 3, 4, 0.8), ("d", 3, 4, 0.8)]),
        ((DOT, A), [(".", 1, 2, 0.9), ("a", 3, 4, 0.8)]),
        ((A, E2, X82, AC), [("a\u20ac", 1, 8, 0.6)]),
        ((A, E2, A), [("a\ufffd", 1, 6, 0.7), ("a", 5, 6, 0.7)]),
        ((A, TAG), [("a<de-DE>", 1, 4, 0.8)]),
        ((A, C_SPACE, B), [("ac", 1, 4, 0.8), ("b", 3, 6, 0.7)]),
        ((A, COMMA), [("a,", 1, 4, 0.8)]),
        ((SPACE,), []),
        ((), []),
    ],
)
def test_words_stand_between_spaces_with_the_times_of_their_tokens(tokens, words):
    assert shown(RNNT, *tokens) == words
    live, times = [], WordTimes(PIECES, MARKS, RNNT)
    every = timed(*tokens)
    for at in range(len(tokens)):
        live += times.feed(every.slice(at, at + 1))
    assert (*live, *times.finish()) == words_of(every, PIECES, MARKS, RNNT)
    assert times.finish() == [] and times.incomplete == ""


def test_a_token_of_a_tdt_model_lasts_as_predicted_and_a_mark_takes_no_time():
    assert shown(TDT, A, B, A) == [("ab", 1, 5, 0.8), ("a", 5, 7, 0.7)]
    assert shown(TDT, A, DOT, A) == [("a.", 1, 3, 0.8), ("a", 5, 7, 0.7)]
    assert shown(TDT, A, DOT, DOT, duration=4) == [("a..", 1, 5, 0.7)]
    assert shown(TDT, DOT, A) == [(".", 1, 3, 0.9), ("a", 3, 5, 0.8)]


def test_tags_of_a_model_with_a_prompt_are_no_words():
    assert shown(PROMPT, A, TAG, B) == [("ab", 1, 6, 0.7)]
    assert shown(PROMPT, A, SPACED_TAG, A) == [("a", 1, 2, 0.9), ("a", 5, 6, 0.7)]
    assert shown(PROMPT, A, E2, TAG) == [("a\ufffd", 1, 6, 0.7)]
    times = WordTimes(PIECES, MARKS, PROMPT)
    assert times.feed(timed(A, B)) == [] and times.incomplete == "ab"


def test_marks_of_a_vocabulary():
    pieces = [
        ",",
        "a.",
        "\u2581!",
        "<?>",
        "[;]",
        "##:",
        " ",
        "\u00bf",
        "\u00a1",
        "(",
        ")",
        "\u00ab",
        "\u00bb",
        "$",
        "'",
        "\u3002",
    ]
    assert punctuation_of(pieces) == frozenset(",.)\u00bb'\u3002")


def word(text, start, end, confidence=0.9):
    return Word(text, start, end, confidence)


def test_a_segment_has_its_words_text_and_times():
    found = Segment((word("a", 1.0, 2.0), word("b", 3.0, 4.0)))
    assert (found.text, found.start, found.end) == ("a b", 1.0, 4.0)
    assert found.shift(10.0) == Segment((word("a", 11.0, 12.0), word("b", 13.0, 14.0)))


@pytest.mark.parametrize(
    ("texts", "pause_s", "segments"),
    [
        ("a b. c? d! e", None, ["a b.", "c?", "d!", "e"]),
        ("a, b; c: d", None, ["a, b; c: d"]),
        ("a b", 0.5, ["a", "b"]),  # as far apart
        ("a b", 0.51, ["a b"]),
        ("", None, []),
    ],
)
def test_segments_end_with_a_sentence_or_before_a_pause(texts, pause_s, segments):
    words = [word(text, float(i), i + 0.5) for i, text in enumerate(texts.split())]
    assert [one.text for one in segments_of(words, *([] if pause_s is None else [pause_s]))] == segments


# Formats


def hypothesis(*words, id="a", text=None):
    text = " ".join(w.text for w in words) if text is None else text
    return Hypothesis(id, text, ("de",), (1, 2), (2.8000000000000003,), (0.16,), (0.5,), words, segments_of(words), 3.0, 0.25)


def test_a_transcript_as_json():
    line = formats.as_json(hypothesis(word("\u00e9a", 35 * 0.08, 36 * 0.08, 0.1 + 0.2)), path="x")
    assert line.endswith("}\n") and line.count("\n") == 1 and "\u00e9a" in line
    assert json.loads(line) == {
        "path": "x", "id": "a", "text": "\u00e9a", "languages": ["de"], "tokens": [1, 2], "token_seconds": [2.8],
        "token_duration_seconds": [0.16], "token_confidences": [0.5],
        "words": [{"text": "\u00e9a", "start": 2.8, "end": 2.88, "confidence": 0.3}],
        "segments": [{"text": "\u00e9a", "start": 2.8, "end": 2.88}], "audio_seconds": 3.0, "work_seconds": 0.25,
        "events": [],
    }  # fmt: skip
    assert [*json.loads(line)][:3] == ["path", "id", "text"]
    for bad in (hypothesis(word("\u00e9\u2028", 0, 1)), hypothesis(word("\u00e9", 0, 1), id="\x85")):
        assert "\\u00e9" in formats.as_json(bad) and len(formats.as_json(bad).splitlines()) == 1


def test_a_segment_as_json():
    line = formats.segment_as_json(Segment((word("\u00e9", 0.1, 1.2345678),)), id="live")
    assert line.endswith("}\n") and "\u00e9" in line and json.loads(line) == {
        "id": "live", "text": "\u00e9", "start": 0.1, "end": 1.234568,
        "words": [{"text": "\u00e9", "start": 0.1, "end": 1.234568, "confidence": 0.9}], "event": None,
    }  # fmt: skip
    assert "\\u00e9" in formats.segment_as_json(Segment((word("\u00e9\u2028", 0, 1),)))


def test_formats_have_their_names():
    expected = {"json": formats.as_json, "srt": formats.as_srt, "vtt": formats.as_vtt, "tsv": formats.as_tsv}
    assert expected == formats.FORMATS


def test_subtitles_and_tables_to_the_letter():
    found = hypothesis(word("A<b&", 0.0, 0.4), word("c\td.", 0.5, 3661.0005), word('"e"', 3663.5, 3663.6))
    first, second, third = formats.as_srt(found).split("\n\n")
    assert first == "1\n00:00:00,000 --> 00:00:00,500\nA<b&"
    assert second.startswith("2\n00:00:00,500 --> 01:01:01,000\nc") and third == '3\n01:01:03,500 --> 01:01:04,500\n"e"\n'
    assert formats.as_vtt(found).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:00.500\nA&lt;b&amp;\n")
    assert formats.as_vtt(found).endswith('\n01:01:03.500 --> 01:01:04.500\n"e"\n')
    assert formats.as_tsv(found) == 'start\tend\ttext\n0\t3661000\tA<b& c d.\n3663500\t3663600\t"e"\n'


@pytest.mark.parametrize(
    ("words", "cues"),
    [
        ([("a", 0.0, 0.2)], [("a", 0.0, 1.0)]),  # a second at least
        ([("a", 0.0, 1.5)], [("a", 0.0, 1.5)]),
        ([("a.", 0.0, 0.2), ("b", 0.5, 2.0)], [("a.", 0.0, 0.5), ("b", 0.5, 2.0)]),  # unless the next one begins before
        ([("a.", 0.0, 0.9), ("b", 0.5, 2.0)], [("a.", 0.0, 0.5), ("b", 0.5, 2.0)]),
        ([("a.", 3.0, 3.2), ("b", 2.0, 4.0)], [("a.", 3.0, 3.0), ("b", 2.0, 4.0)]),
        ([("a", 0.0, 3.0), ("b", 3.0, 7.0)], [("a b", 0.0, 7.0)]),  # seven seconds at most
        ([("a", 0.0, 3.0), ("b", 3.0, 7.1)], [("a", 0.0, 3.0), ("b", 3.0, 7.1)]),
        ([("a", 0.0, 1.0), ("b", 2.0, 3.0)], [("a", 0.0, 1.0), ("b", 2.0, 3.0)]),  # a pause of a second
        ([("a", 0.0, 1.0), ("b", 1.9, 3.0)], [("a b", 0.0, 3.0)]),
        ([("w" * 42, 0.0, 1.0), ("v" * 42, 1.0, 2.0)], [(f"{'w' * 42} {'v' * 42}", 0.0, 2.0)]),  # two lines of 42
        ([("w" * 42, 0.0, 1.0), ("v" * 42, 1.0, 2.0), ("u", 2.0, 3.0)], [(f"{'w' * 42} {'v' * 42}", 0.0, 2.0), ("u", 2.0, 3.0)]),
        ([], []),
    ],
)
def test_cues(words, cues):
    assert [(c.text, c.start, c.end) for c in formats.cues([word(*one) for one in words])] == cues


def test_lines_break_at_spaces_alone():
    assert formats._lines(f"{'a' * 20}-{'b' * 30} c") == f"{'a' * 20}-{'b' * 21}\n{'b' * 9} c"
    assert formats._lines("a-b " * 12) == "\n".join([" ".join(["a-b"] * 10), "a-b a-b"])
