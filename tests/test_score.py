"""Word error rates, limits, verdicts on single figures, reports."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from nemoport import score
from nemoport.artifact import ONNXRUNTIME
from nemoport.cache_layout import precision_of
from nemoport.errors import ArtifactError, UsageError
from nemoport.score import RESAMPLES, SEED, count_all, count_words, wer_difference, wer_interval
from nemoport.validate import gates, limits
from nemoport.validate.gate_result import FAIL, PASS, GateResult, within
from nemoport.validate.report import junit, write_reports
from nemoport.validate.result_store import read_results, results_path

FP32 = "fp32"


def test_a_limit_needs_a_number_and_a_reason(tmp_path):
    path = tmp_path / "gates.toml"
    path.write_text("[x]\nrequired = []\nstreams = 1\n[x.wer]\nmax_empty = 0\n")
    with pytest.raises(ArtifactError, match="x.wer"):
        limits.read_limits(path)
    path.write_text(path.read_text() + 'reason = "because"\n')
    with pytest.raises(UsageError, match="max_difference"):
        limits.limits_of("x", path).get("wer", "max_difference")
    for variant, block in limits.read_limits().items():
        integers = block.target == ONNXRUNTIME and precision_of(variant) not in ("fp32", "fp16")
        unasked = set() if integers else {"structure"}  # which asks for integer products, in onnxruntime's graph
        assert set(block.required) == set(gates.names()) - unasked


@pytest.mark.parametrize(
    ("measured", "limit", "at_least", "n", "status"),
    [
        (1.0, 1.0, True, 1, PASS),
        (0.99, 1.0, True, 1, FAIL),
        (1.0, 1.0, False, 1, PASS),
        (1.1, 1.0, False, 1, FAIL),
        (float("nan"), 1.0, False, 1, FAIL),
        (float("nan"), None, False, 1, FAIL),
        (float("-inf"), 1.0, False, 1, FAIL),
        (1.0, None, False, 1, PASS),
        (1.0, 1.0, False, 0, FAIL),
    ],
)
def test_only_a_finite_figure_of_something_within_its_limit_passes(measured, limit, at_least, n, status):
    assert within(measured, limit, at_least=at_least, n=n) == status


def test_the_interval_of_classes_is_that_of_utterances(monkeypatch):
    """scipy draws utterances; drawing classes of equal counts is the same distribution, in blocks of any size."""
    from collections import Counter

    from scipy.stats import bootstrap

    random = np.random.default_rng(1)
    words = random.integers(0, 30, 400)
    errors = random.binomial(words, 0.2) + (random.random(400) < 0.1)
    found = score.wer_interval(Counter(zip(errors.tolist(), words.tolist(), strict=True)))
    rate = lambda e, w, axis=-1: 100 * e.sum(axis) / w.sum(axis)  # noqa: E731
    other = bootstrap((errors, words), rate, paired=True, method="percentile", n_resamples=4000, rng=2).confidence_interval
    assert found.value == rate(errors, words)
    assert abs(found.lower - other.low) < 0.15 and abs(found.upper - other.high) < 0.15 and found.upper - found.lower > 2
    whole = score.wer_interval({(1, 4): 2, (0, 3): 5}, resamples=300)
    monkeypatch.setattr(score, "MOST_DRAWN", 200)  # 100 draws of two classes at once
    assert score.wer_interval({(0, 3): 5, (1, 4): 2}, resamples=300) == whole  # whatever the order and the blocks
    assert score.wer_interval({(3, 10): 1}) == score.Interval(30.0, 30.0, 30.0)
    assert np.isnan(score.wer_interval({}).value) and np.isnan(score.wer_interval({(2, 0): 3}).upper)


def test_word_counts():
    assert score.normalise("Hello,  World \u2019s-end!") == "hello world 's end"
    assert score.count_words("a b c", "") == score.WordCounts(3, 0, 3, 0)
    assert score.count_words("", "a b") == score.WordCounts(0, 0, 0, 2)
    assert score.count_words("the cat sat", "the bat sat down") == score.WordCounts(3, 1, 0, 1)
    assert score.wer_percent(score.count_all(["a b", "c d"], ["a b", ""])) == 50.0
    assert np.isnan(score.wer_percent([]))


def test_bootstrap_is_paired_and_repeatable():
    base = [[score.WordCounts(10, 3, 0, 0)] for _ in range(50)]
    assert score.wer_difference(base, base) == score.Interval(0.0, 0.0, 0.0)
    worse = [[score.WordCounts(10, 4 if i < 5 else 3, 0, 0)] for i in range(50)]
    found = score.wer_difference(worse, base)
    assert found == score.wer_difference(worse, base)
    assert found.value == pytest.approx(1.0)
    assert 0.0 <= found.lower < 1.0 < found.upper < 3.0


def test_reports_of_hostile_text(tmp_path):
    result = GateResult("wer", FP32, "", FAIL, "case | <x>", float("nan"), None, "points", 1, (0.0, 1.0), 'a "\x00" | <b>')
    root = ElementTree.fromstring(junit({FP32: [result]}))
    assert root[0][0][0].get("message")
    path = results_path(tmp_path, FP32)
    path.parent.mkdir()
    path.write_text(json.dumps(result.to_dict()) + "\n")
    write_reports(tmp_path, [])
    assert "fail: wer" in (tmp_path / "results" / "report.md").read_text()
    path.write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_results(path)


@pytest.mark.parametrize("special", ["<EOU>", "<EOB>", "<de-DE>", "<|endoftext|>", "<|en|>", "</s>", "<unk>", "<extra_id_0>"])
def test_special_tokens_are_no_words(special):
    spoken = "how are you"
    for text in (f"how are you{special}", f"{special} how are you {special}", f"how{special}are {special}{special} you"):
        assert score.normalise(text) == spoken
        assert score.count_words(text, spoken) == score.count_words(spoken, text) == score.WordCounts(3, 0, 0, 0)
    assert score.count_words(special, special).words == score.count_words("", special).errors == 0


def test_other_angle_brackets_are_punctuation():
    assert score.normalise("a < b and c > d, 3<4 <> 5") == "a b and c d 3 4 5"


def test_scores_of_other_scripts():
    """Vowel signs belong to the letters before them, joiners to nothing; without spaces characters are counted."""
    assert score.normalise("मेरा नाम क्‍या है।") == "मेरा नाम क्या है"
    assert score.count_words("मेरा नाम है", "मेरा नम है") == score.WordCounts(3, 1, 0, 0)
    assert score.normalise("Guten Tag, <de-DE>") == score.normalise("guten tag")
    assert score.count_words("きょうは、さむいです。", "きょうはさむいです <ja-JP>", "ja-JP") == score.WordCounts(9, 0, 0, 0)
    assert score.count_words("きょうは", "きょう は", "ja_jp") == score.WordCounts(4, 0, 0, 0)
    assert score.count_words("今日は", "今は", "cmn_hans_cn") == score.WordCounts(3, 0, 1, 0)
    assert score.count_words("ｶﾀｶﾅ", "カタカナ", "ja-JP").errors == 0


@pytest.mark.parametrize("language", ["ja", "zh", "yue", "cmn", "th", "lo", "km", "my", "ZH", "th-TH", "yue_hant_hk"])
def test_languages_without_spaces(language):
    assert score.is_unspaced(language)
    assert score.count_words("ab cd", "ab ce", language) == score.WordCounts(4, 1, 0, 0)


@pytest.mark.parametrize("language", ["", "en", "de-DE", "jav", "x-ja", "lol", "tha"])
def test_languages_with_spaces(language):
    assert not score.is_unspaced(language)
    assert score.count_words("ab cd", "ab ce", language) == score.WordCounts(2, 1, 0, 0)


def test_an_interval_is_the_same_one_on_every_machine():
    """Published intervals can be measured again: the draws are numpy's with seed 0."""
    base = [[score.WordCounts(70 + 13 * i % 31, i % 3, 0, 0)] for i in range(41)]
    worse = [[score.WordCounts(70 + 13 * i % 31, i % 5, 0, i % 2)] for i in range(41)]
    found = score.wer_difference(worse, base)
    expected = (1.721170395869191, 1.0813810395483703, 2.3435323038725353)
    assert (found.value, found.lower, found.upper) == pytest.approx(expected, abs=1e-12)


def test_units_are_apart_by_one_space():
    assert score.units("ab cd, ", "ja") == "a b c d"
    assert score.units("Ab  cd, ", "de") == "ab cd"


def test_languages_of_each_utterance():
    (spaced, japanese) = count_all(["a bc", "あいう"], ["a b", "あいえ"], ["en", "ja-JP"])
    assert (spaced.words, spaced.errors) == (2, 1) and (japanese.words, japanese.errors) == (3, 1)
    (without,) = count_all(["あいう"], ["あいえ"])
    assert (without.words, without.errors) == (1, 1)


def test_without_a_word_there_is_no_rate():
    """Three numbers that are none, so that what formats or compares them needs no case of its own."""
    nothing = [[count_words("", "a")]]
    for interval in (wer_difference(nothing, nothing), wer_interval({}), wer_interval({(2, 0): 3})):
        assert all(type(part) is float and np.isnan(part) for part in (interval.value, interval.lower, interval.upper))


def rates_of_draws(errors, words, resamples):
    """The rates of a bootstrap, draw by draw; draws without a word have none."""
    random, count = np.random.default_rng(SEED), len(words)
    draws = [random.multinomial(count, [1 / count] * count) for _ in range(resamples)]
    return [100.0 * (draw @ errors) / (draw @ words) for draw in draws if draw @ words]


def test_the_interval_of_a_difference_draw_by_draw():
    """Of three utterances two have no word and the third has one, so that draws have none, one, two or three."""
    variant, base = (
        [[count_words(*row)] for row in (("a", "b"), ("", "c"), ("", ""))],
        [[count_words(*row)] for row in (("a", "a"), ("", ""), ("", "d e"))],
    )
    rates = rates_of_draws(np.array([1, 1, -2]), np.array([1, 0, 0]), RESAMPLES)
    found = wer_difference(variant, base)
    assert found.value == 0.0
    assert [found.lower, found.upper] == pytest.approx(np.percentile(rates, [2.5, 97.5]), rel=1e-12)


@pytest.mark.parametrize("resamples", [1, 4, 401])
@pytest.mark.parametrize("most", [1 << 24, 900, 7, 1])
def test_the_interval_of_a_rate_draw_by_draw(monkeypatch, resamples, most):
    """However many draws are held at once."""
    monkeypatch.setattr("nemoport.score.MOST_DRAWN", most)
    for counts in ([(1, 1), (2, 0), (5, 9)], [(0, 4), (1, 1), (2, 11), (3, 7), (4, 5), (5, 9), (7, 8)]):
        found = wer_interval(dict.fromkeys(counts, 1), resamples)
        errors, words = np.array(counts).T
        rates = rates_of_draws(errors, words, resamples)
        assert found.value == pytest.approx(100 * errors.sum() / words.sum())
        assert [found.lower, found.upper] == pytest.approx(np.percentile(rates, [2.5, 97.5]), rel=1e-12)
