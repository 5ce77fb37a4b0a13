"""N-gram language models: what KenLM reads of a file that the recipe writes, words that tokens spell, files that are no model."""

import math
import sys

import numpy as np
import pytest

from nemoport.beam import BeamSearch
from nemoport.confidence import log_softmax
from nemoport.ctc_beam import CtcBeam
from nemoport.errors import ArtifactError, UsageError
from nemoport.language_model import ArpaFile, LanguageModel, read_words
from nemoport.reference import ngram

PIECES = ["<unk>", "▁the", "▁red", "▁door", "s", "▁R", "ed", ",", "▁", "or", "<0xC3>", "<0xA9>", "▁do"]
SENTENCES = ["the red door", "the red doors", "the door", "a red door and the red doors", "open the é door"] * 3


def spelled(*pieces):
    return [PIECES.index(piece) for piece in pieces]


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    ngram.write(path, [line.split() for line in SENTENCES], 3)
    return path


def scored(model, pieces):
    context = model.start
    for token in spelled(*pieces):
        context = model.advance(context, token)
    return model.end(context)


def test_ngrams_are_probabilities():
    probabilities, backoff = ngram.estimated([line.split() for line in SENTENCES], 3)
    words = [word for (word,) in probabilities[0]]

    def probability(history, word):
        if (*history, word) in probabilities[len(history)]:
            return probabilities[len(history)][*history, word]
        return backoff.get(history, 1.0) * probability(history[1:], word) if history else 0.0

    assert words.count(ngram.UNKNOWN) == 1
    for history in [(), ("the",), ("the", "red"), ("<s>",), ("<s>", "the"), ("doors",), ("é", "the")]:
        assert sum(probability(history, word) for word in words) == pytest.approx(1.0)


def test_kenlm_gives_the_probabilities_of_the_file(arpa):
    pytest.importorskip("kenlm")
    probabilities, _ = ngram.estimated([line.split() for line in SENTENCES], 3)
    wanted = [probabilities[1]["<s>", "the"], probabilities[2]["<s>", "the", "red"], probabilities[2]["the", "red", "doors"]]
    found = scored(LanguageModel(ArpaFile(arpa, 0.7, 2.0), PIECES), ["▁the", "▁red", "▁door", "s"])
    assert found == pytest.approx(0.7 * sum(map(math.log, wanted)) + 3 * 2.0, abs=1e-5)


def test_case_punctuation_and_bytes(arpa):
    pytest.importorskip("kenlm")
    model = LanguageModel(ArpaFile(arpa), PIECES)
    plain = scored(model, ["▁the", "▁red", "▁door"])
    assert scored(model, ["▁the", "▁R", "ed", ",", "▁door"]) == plain
    assert scored(model, ["▁the", "▁red", "▁", ",", "▁door"]) == plain  # a mark alone is no word
    counting = LanguageModel(ArpaFile(arpa, 0.0, 1.0), PIECES)
    assert scored(counting, ["▁the", "▁", "<0xC3>", "<0xA9>"]) == 2.0
    assert scored(model, ["▁the", "<unk>", "▁red", "▁door"]) == plain


def test_words_run_together_are_charged_at_once(arpa):
    pytest.importorskip("kenlm")
    model = LanguageModel(ArpaFile(arpa, 1.0, 0.0), PIECES)
    split, joined, begun, capital = (model.start,) * 4
    for token in spelled("▁the", "▁red"):
        split = model.advance(split, token)
    for token in spelled("▁the", "or"):
        joined = model.advance(joined, token)
    for token in spelled("▁the", "▁do"):
        begun = model.advance(begun, token)
    for token in spelled("▁the", "▁R"):
        capital = model.advance(capital, token)
    assert joined.score < split.score and begun.score == capital.score == split.score


def test_a_language_model_decides_between_words_that_sound_alike(arpa):
    pytest.importorskip("kenlm")
    wanted, rival = spelled("▁the", "▁red", "▁door"), spelled("▁R", "▁do", "▁red")
    rows = np.full((2 * len(wanted), len(PIECES) + 1), -15.0)
    for i, (token, other) in enumerate(zip(wanted, rival, strict=True)):
        rows[2 * i, token] = 0.0
        rows[2 * i, other] = 0.5
        rows[2 * i + 1, -1] = 0.0

    def text(model):
        beam = CtcBeam.initial(BeamSearch(2, language_model=model), len(PIECES))
        beam.run(log_softmax(rows))
        return beam.tokens

    assert text(None) == rival
    assert text(LanguageModel(ArpaFile(arpa), PIECES)) == wanted
    assert text(LanguageModel(ArpaFile(arpa, weight=0.0), PIECES)) == rival


def changed(old, new):
    return lambda content: content.replace(old, new, 1)


DAMAGE = {
    "text": lambda content: b"the red door\n",
    "empty": lambda content: b"",
    "gzip": lambda content: b"\x1f\x8b\x08" + content,
    "kenlm's binary": lambda content: b"mmap lm http://kheafield.com/code format version 5\n\0" + content,
    "a count beyond the file": changed(b"ngram 2=", b"ngram 2=9999999"),
    "a count that is too small": lambda content: content.replace(b"ngram 1=", b"ngram 1=1\nngram 2=", 1),
    "orders out of turn": changed(b"ngram 2=", b"ngram 5="),
    "order 7": lambda content: b"\\data\\\n" + b"".join(b"ngram %d=1\n" % n for n in range(1, 8)) + b"\n\\1-grams:\n" + content,
    "no n-grams": lambda content: content[: content.index(b"\\1-grams")],
    "cut": lambda content: content[: len(content) // 2],
    "a probability that is none": changed(b"\tdoor", b"x\tdoor"),
    "no UTF-8 where it breaks": lambda content: content.replace(b"\\2-grams:", b"\xff\xfe", 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused(arpa, tmp_path, damage):
    pytest.importorskip("kenlm")
    path = tmp_path / "lm.arpa"
    path.write_bytes(DAMAGE[damage](arpa.read_bytes()))
    with pytest.raises(ArtifactError, match="cannot be used as a language model"):
        LanguageModel(ArpaFile(path), PIECES)


def test_a_file_is_bounded_before_kenlm_opens_it(arpa, tmp_path, monkeypatch):
    lying = tmp_path / "lm.arpa"
    lying.write_bytes(arpa.read_bytes().replace(b"ngram 3=", b"ngram 3=9999999", 1))
    with pytest.raises(ArtifactError, match="a head that counts 9999999"):
        read_words(lying)
    assert read_words(arpa) == sorted(read_words(arpa)) and b"door" in read_words(arpa)
    for bound in ("MOST_WORDS", "MOST_BYTES"):
        with monkeypatch.context() as patch, pytest.raises(ArtifactError, match="more than 3"):
            patch.setattr(f"nemoport.language_model.{bound}", 3)
            read_words(arpa)


def test_a_score_that_is_no_number_is_refused(arpa, tmp_path):
    pytest.importorskip("kenlm")
    lines = arpa.read_bytes().split(b"\n")
    path = tmp_path / "lm.arpa"
    path.write_bytes(b"\n".join(b"-inf\t" + line.split(b"\t", 1)[1] if b"\tred" in line else line for line in lines))
    with pytest.raises(ArtifactError, match="log probability"):
        scored(LanguageModel(ArpaFile(path), PIECES), ["▁red", "▁door"])


def test_files_and_settings_that_do_not_exist(arpa, tmp_path, monkeypatch):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ArtifactError, match="cannot be used as a language model"):
            read_words(path)
    for settings in ({"weight": -0.1}, {"weight": math.nan}, {"word_bonus": 101.0}):
        with pytest.raises(UsageError, match="A language model cannot have"):
            LanguageModel(ArpaFile(arpa, **settings), PIECES)
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(UsageError, match="nemoport\\[lm\\]"):
        LanguageModel(ArpaFile(arpa), PIECES)
