"""Hotwords: matched on the text that tokens spell, whatever the tokens; taken back when the text goes on otherwise."""

from pathlib import Path

import numpy as np
import pytest

from nemoport.cli import main
from nemoport.decode import GreedyState
from nemoport.errors import UsageError
from nemoport.hotwords import REACH, Hotwords
from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import read_corpus

REFERENCE = Path(__file__).parent.parent / "reference"
PIECES = ["<unk>", "▁", "a", "r", "t", "i", "s", "▁art", "is", "▁new", "▁york", "n", "e", "w", ".", "<0xC3>", "<0xA9>",
          "▁ART", "o", "k", "y", "<en-US>", "▁t", "'"]  # fmt: skip


def ids(*pieces):
    return [PIECES.index(piece) for piece in pieces]


def boost(hotwords, tokens):
    """What the search adds to the score of these tokens, and what the end of the text makes of it."""
    match, total = hotwords.start, 0.0
    for token in tokens:
        gain, before = hotwords.gains(match)[token], match
        match = hotwords.advance(match, token)
        # By one byte after another: `_gains` deals with many tokens at once.
        kept = 0.0
        for byte in hotwords._spelled[token]:
            before, more = hotwords._read(before, byte)
            kept += more
        assert before == match
        total += gain
    return total, total + hotwords.end(match)


@pytest.mark.parametrize(
    ("pieces", "pending", "final"),
    [
        (["▁art"], 1, 1),
        (["▁", "a", "r", "t"], 1, 1),  # any tokens that spell it, with the same boost
        (["▁ART"], 1, 1),  # case does not matter
        (["▁", "a", "r"], 1, 0),  # no more than the whole has, in however many tokens
        (["▁"], 0, 0),
        (["▁art", "is"], 0, 0),  # another word: taken back
        (["▁art", "is", "t"], 0, 0),
        (["▁art", "▁york"], 1, 1),  # said
        (["▁art", "."], 1, 1),
        (["▁art", "'", "s"], 1, 1),
        (["▁art", "<en-US>"], 1, 1),  # a tag ends a word
        (["▁art", "▁art"], 2, 2),
        (["▁new"], 1, 0),  # half a phrase counts until the text goes on otherwise, or ends
        (["▁new", "▁york"], 2, 2),
        (["▁new", "▁new", "▁york"], 2, 2),
        (["▁new", "▁new", "▁", "y", "o", "r", "k"], 2, 2),
        (["▁new", "▁art"], 1, 1),
        (["n", "e", "w", "▁york"], 0, 0),  # a phrase begins with a word
        (["▁t", "<0xC3>", "<0xA9>"], 3, 3),  # bytes spell characters
        (["▁t", "<0xC3>", "<0xA9>", "<0xC3>"], 0, 0),
        (["▁t", "o"], 0, 0),
        (["<unk>", "<en-US>"], 0, 0),
    ],
)
def test_boosts(pieces, pending, final):
    hotwords = Hotwords(PIECES, ["Art", " New  York ", "té"], 1.0)
    assert boost(hotwords, ids(*pieces)) == (pending, final)
    assert hotwords.gains(hotwords.start)[len(PIECES)] == 0  # blank says nothing


def test_the_boost_is_of_the_text_alone():
    """Random tokens: equal texts have equal boosts, and all that is pending is taken back or kept."""
    random, hotwords, seen = np.random.default_rng(0), Hotwords(PIECES, ["art", "new york", "is"], 0.7), {}
    for _ in range(2000):
        tokens = random.integers(0, len(PIECES), random.integers(1, 7)).tolist()
        text = b"".join(hotwords._spelled[t] for t in tokens)
        found = boost(hotwords, tokens)
        assert seen.setdefault(text, found) == pytest.approx(found)
        assert found[1] == pytest.approx(0.7 * round(found[1] / 0.7)) and found[1] >= -1e-9
    assert len(seen) < 2000


@pytest.mark.parametrize(
    ("phrases", "number", "message"),
    [
        (["art", "zoo"], 1.0, "(?s)'zoo'.*found: 'z', which no token has"),
        (["  "], 1.0, "empty"),
        ([], 1.0, "No hotwords"),
        (["art"], 0.0, "above 0"),
        (["art"], float("nan"), "above 0"),
    ],
)
def test_what_cannot_be_expected_is_refused(phrases, number, message):
    with pytest.raises(UsageError, match=message):
        Hotwords(PIECES, phrases, number)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(hotword_boost=1.0), "No hotwords"),
        (dict(hotwords=["東"]), "東"),
        (dict(beam=4, hotword_boost=1.0), "No hotwords"),
        (dict(beam=4, hotwords="art"), "a list"),
        (dict(beam=4, hotwords=["café 東"]), "東"),
    ],
)
def test_the_recognizer_refuses(options, message, build):
    with pytest.raises(UsageError, match=message):
        Recognizer.open(build / "fp32", **options)


def utterance(name):
    corpus = read_corpus(REFERENCE / "audio" / "eval.jsonl", 16000)
    return next(u for u in corpus.utterances if u.path.name == name)


def test_words_that_greedy_gets_wrong(build):
    """Words that are in no training text of the checkpoint. Greedy, and a beam alone, hear others."""
    samples = utterance("036.flac").samples()

    def transcribed(**options):
        return next(Recognizer.open(build / "fp32", 13, threads=1, **options).transcribe([("", samples)])).text

    assert transcribed() == transcribed(beam=4) == "astronots training a centrifuge"
    assert transcribed(beam=4, hotwords=["astronauts"]) == "astronauts training a centrifuge"
    assert transcribed(beam=4, hotwords=["Astronauts", "train in"]).startswith("astronauts train in a")
    assert transcribed(beam=4, hotwords=["yogurt", "hurricane", "astronomy"]) == transcribed(beam=4)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_boost_however_high_repeats_nothing_and_fills_no_silence(build, beam):
    """A boost reaches tokens that are nearly as likely as the best one, and greedy decoding never emits one for a blank."""
    audio = np.concatenate([utterance("036.flac").samples(), np.zeros(48000, np.float32)])
    options = {"hotwords": ["astronauts", "a", "yogurt", "hurricane"], "hotword_boost": 1000.0}
    (found,) = Recognizer.open(build / "fp32", 13, threads=1, beam=beam, **options).transcribe([("", audio)])
    words = found.text.split()
    assert words[:2] == ["astronauts", "training"] and len(words) <= 6, words
    assert max(map(words.count, words)) <= 2


def greedy_choice(scores: dict[str, float], phrases, match=(), boost=2.0):
    state = GreedyState(0, np.zeros(0), np.zeros(0), hotwords=Hotwords(PIECES, phrases, boost), match=match)
    row = np.full(len(PIECES), -50.0, np.float32)
    for piece, value in scores.items():
        row[PIECES.index(piece)] = value
    return PIECES[state.choose(row)], state


def test_greedy_decoding_favours_what_continues_a_hotword():
    start, art = PIECES.index("▁"), Hotwords(PIECES, ["art"], 2.0)
    first = art.advance(art.start, start)
    near = {"a": -1.9, "i": 0.0}
    assert greedy_choice(near, ["art"], first)[0] == "a" and greedy_choice(near, ["is"], first)[0] == "i"
    assert greedy_choice({"a": -2.1, "i": 0.0}, ["art"], first)[0] == "i"
    # However high the boost, nothing beyond REACH is lifted.
    assert greedy_choice({"a": -REACH + 0.1, "i": 0.0}, ["art"], first, 1000.0)[0] == "a"
    assert greedy_choice({"a": -REACH - 0.1, "i": 0.0}, ["art"], first, 1000.0)[0] == "i"


def test_greedy_decoding_pays_nothing_for_breaking_a_phrase_off():
    _, state = greedy_choice({"▁new": 0.0}, ["new york"])
    assert state.match
    assert greedy_choice({"i": 0.0, "▁york": -2.1}, ["new york"], state.match)[0] == "i"
    assert greedy_choice({"i": 0.0, "▁york": -1.9}, ["new york"], state.match)[0] == "▁york"


def test_confidence_is_that_of_the_model_and_not_of_the_boost(build):
    samples = utterance("036.flac").samples()
    options = {"hotwords": ["astronauts"], "hotword_boost": 3.0}
    (found,) = Recognizer.open(build / "fp32", 13, threads=1, **options).transcribe([("", samples)])
    assert found.words[0].text == "astronauts" and found.words[0].confidence < 0.5


def test_command_line(build, capsys):
    audio = str(utterance("036.flac").path)
    common = ["transcribe", str(build / "fp32"), audio, "--lookahead", "13", "--threads", "1"]
    assert main([*common, "--beam", "4", "--hotword", "astronauts", "--hotword", "yogurt", "--hotword-boost", "2"]) == 0
    assert capsys.readouterr().out.split("\t")[1].startswith("astronauts ")
    assert main([*common, "--hotword", "astronauts", "--hotword-boost", "3"]) == 0
    assert capsys.readouterr().out.split("\t")[1].startswith("astronauts ")
    assert main([*common, "--beam", "0"]) == 2 and "1 or more" in capsys.readouterr().err
