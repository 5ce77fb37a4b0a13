"""Scorers of stored texts: their names, versions and rules; scores by groups, in memory that does not depend on their number."""

import json
from collections import Counter

import pytest

from nemoport.cli import main
from nemoport.errors import UsageError
from nemoport.evaluation.item import Item
from nemoport.evaluation.results import HYPOTHESES, line_of
from nemoport.evaluation.scorers import SCORERS, scorer
from nemoport.evaluation.scoring import score
from nemoport.score import WordCounts, count_words

RUN = {"artifact": {}, "options": {}, "versions": {}, "data": {}, "shard": "1/1"}


@pytest.fixture
def leaderboard(tmp_path):
    """What `open-asr` needs of the leaderboard's repository, with rules of our own."""
    folder = tmp_path / "board" / "normalizer"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("import torch_that_is_not_there")
    (folder / "english_abbreviations.py").write_text("names = {'jon': 'john'}")
    (folder / "normalizer.py").write_text(
        "from .english_abbreviations import names\n\n\nclass EnglishTextNormalizer:\n    def __call__(self, text):\n"
        "        return ' '.join(names.get(word, word) for word in text.lower().split())\n"
    )
    return folder.parent


def write(folder, rows):
    """Results of (id, reference, text, language, fields); a text of None failed."""
    folder.mkdir()
    lines = []
    for id, reference, text, language, fields in rows:
        known = Item(id, "", text=reference, language=language, fields=fields).known()
        lines.append(
            line_of(known | ({"error": "bad"} if text is None else {"text": text, "languages": [], "audio_seconds": 1.0}))
        )
    (folder / HYPOTHESES).write_bytes(b"".join(lines))
    (folder / "run.json").write_text(json.dumps(RUN))
    return folder


@pytest.mark.parametrize(
    ("name", "reference", "hypothesis", "language", "expected"),
    [
        ("wer", "Colour, it's TWENTY", "color its twenty", "en", WordCounts(3, 2, 0, 0)),
        ("wer", "きょうは", "きょうも", "ja", WordCounts(4, 1, 0, 0)),
        ("wer", "<EOU> yes", "yes <en-US>", "", WordCounts(1, 0, 0, 0)),
        ("cer", "the cat!", "The hat", "en", WordCounts(7, 1, 0, 0)),
        ("cer", "the cat", "thecat", "en", WordCounts(7, 0, 1, 0)),
        ("cer", "東京 都", "東京都", "ja", WordCounts(3, 0, 0, 0)),
        ("whisper-english", "Mr. O'Brien's colour cost twenty one dollars, um", "mister obriens color cost $21", "en", None),
        ("whisper-english", "I won't go to the theatre", "i will not go to the theater", "en-US", WordCounts(7, 0, 0, 0)),
        ("whisper-english", "(laughs) one hundred and two", "102", "", WordCounts(1, 0, 0, 0)),
        ("whisper-basic", "Für (hm) alle: 3,5!", "für alle 3 5", "de", WordCounts(4, 0, 0, 0)),
        ("whisper-basic", "colour", "color", "en", WordCounts(1, 1, 0, 0)),
        ("whisper-basic", "東京。", "東 京", "ja", WordCounts(2, 0, 0, 0)),
    ],
)
def test_rules(name, reference, hypothesis, language, expected):
    pytest.importorskip("whisper_normalizer")
    found = scorer(name).count(reference, hypothesis, language)
    assert expected is None or found == expected
    assert scorer(name).count(reference, reference, language).errors == 0
    assert scorer(name).count(reference, "", language).deletions == found.words
    assert scorer(name).count("", hypothesis, language).words == 0


def test_the_leaderboards_own_code_counts_as_it_does(leaderboard):
    pytest.importorskip("kaldialign")
    with pytest.raises(UsageError, match="git clone"):
        scorer("open-asr")
    found = scorer("open-asr", leaderboard)
    assert found.count("Jon has white paper", "john has whitepaper now", "en") == WordCounts(4, 0, 0, 1)
    (leaderboard / "normalizer" / "english_abbreviations.py").write_text("names = {}")
    other = scorer("open-asr", leaderboard)
    assert other.count("Jon", "john", "en").substitutions == 1 and found.version != other.version
    assert found.version.startswith("sha256:") and found.libraries.keys() == {"kaldialign"}
    (leaderboard / "normalizer" / "normalizer.py").write_text("x = 1")
    with pytest.raises(UsageError, match="cannot be used"):
        scorer("open-asr", leaderboard)


def test_a_scorer_for_english_refuses_what_is_known_to_be_another_language(tmp_path):
    pytest.importorskip("whisper_normalizer")
    folder = write(tmp_path / "r", [("a", "ja", "ja", "de-DE", {})])
    with pytest.raises(UsageError, match="not for de-DE"):
        score(folder, scorer("whisper-english"))
    with pytest.raises(UsageError, match="wer, cer"):
        scorer("wre")
    assert not (folder / "scores").exists()


def test_scores_by_language_and_fields(tmp_path):
    rows = [
        ("a", "one two", "one two", "en", {"set": "clean"}),
        ("b", "one two", "one", "en", {"set": "noise", "speaker": "1"}),
        ("c", "eins zwei drei", "eins zwei vier fünf", "de", {"set": "noise"}),
        ("d", "x", None, "de", {"set": "noise"}),
        ("e", None, "transcribed", "en", {}),
    ]
    folder = write(tmp_path / "r", rows)
    found = score(folder, scorer("wer"), ["language", "set"])
    whole = found["overall"]
    assert (whole["utterances"], whole["words"], whole["substitutions"], whole["deletions"], whole["insertions"]) == (
        3,
        7,
        1,
        1,
        1,
    )
    assert whole["percent"] == 42.8571 and whole["lower"] <= whole["percent"] <= whole["upper"]
    assert (found["failed"], found["without_reference"]) == (1, 1)
    assert {name: {value: one["percent"] for value, one in of.items()} for name, of in found["groups"].items()} == {
        "language": {"de": 66.6667, "en": 25.0},
        "set": {"clean": 0.0, "noise": 60.0},
    }
    assert json.loads((folder / "scores" / "wer.json").read_text()) == found
    assert found["version"] == "1" and found["libraries"].keys() == {"jiwer"} and len(found["hypotheses_sha256"]) == 64
    with pytest.raises(UsageError, match="no utterance with it"):
        score(folder, scorer("wer"), ["voice"])


def test_a_field_that_names_each_utterance_makes_no_groups(tmp_path):
    folder = write(tmp_path / "r", [(str(i), "a", "a", "", {"speaker": str(i)}) for i in range(1001)])
    with pytest.raises(UsageError, match="more than 1000"):
        score(folder, scorer("wer"), ["speaker"])


def test_scores_are_those_of_the_gates(tmp_path):
    texts = [("the cat sat", "the bat sat down"), ("hello", "hello"), ("a b c d", "a c")]
    folder = write(tmp_path / "r", [(str(i), *pair, "", {}) for i, pair in enumerate(texts)])
    counts = Counter((one.errors, one.words) for one in (count_words(*pair) for pair in texts))
    whole = score(folder, scorer("wer"))["overall"]
    assert whole["percent"] == round(100 * sum(e * n for (e, _), n in counts.items()) / 8, 4)


def test_the_command_line_prints_a_table_and_json(tmp_path, capsys):
    folder = write(tmp_path / "r", [("a", "one two", "one", "en", {"set": "x"}), ("b", "one", None, "en", {})])
    assert main(["score", str(folder), "--by", "set", "--scorer", "wer", "--scorer", "cer"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("wer, version 1 (jiwer") and "left out: 1 failed" in lines[0]
    assert lines[1].split()[:4] == ["all", "50.00", "%", "[50.00,"] and "set x" in lines[3] and "characters" in lines[5]
    assert main(["score", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scorer"] == "wer"
    empty = write(tmp_path / "none", [("a", None, "x", "", {})])
    assert main(["score", str(empty)]) == 0 and "no words in 0 utterances" in capsys.readouterr().out
    assert main(["score", str(folder), "--scorer", "x"]) == 2 and ", ".join(SCORERS) in capsys.readouterr().err
