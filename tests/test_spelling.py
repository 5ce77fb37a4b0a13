"""Text of a stream as it comes: what is printed is never changed, and all of it is the text of the whole."""

import numpy as np
import pytest

from nemoport import tokens
from nemoport.errors import ArtifactError
from nemoport.tokens import (
    Pieces,
    Spelling,
    SpellingRule,
    detokenize,
    is_piece,
    is_special,
    read_tokens,
    split_tags,
    tag_tokens,
)

PIECES = [
    "<unk>", "\u2581", "\u2581the", "\u2581key", "s", ".", "<0xE2>", "<0x82>", "<0xAC>", "<0xFF>", "\u2581<de-DE>", "<fr-FR>",
    "<", "de", "-", "DE", ">", " ", "\u00e9", "\u2581\u2581",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("with_tags", [True, False])
def test_packets_of_tokens_spell_the_whole(seed, with_tags):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, len(PIECES), 300).tolist()
    whole = detokenize(PIECES, ids)
    spelling, text, at = Spelling(PIECES, with_tags=with_tags), "", 0
    while at < len(ids):
        size = int(rng.integers(1, 5))
        text += spelling.feed(ids[at : at + size])
        at += size
    assert text + spelling.finish() == (whole if with_tags else split_tags(whole)[0])


def test_nothing_waits_but_what_can_change():
    spelling = Spelling(PIECES, with_tags=False)
    assert [spelling.feed([i]) for i in (2, 3, 6, 7, 8, 4, 10, 5)] == ["the", " key", "", "", "\u20ac", "s", "", "."]
    assert [spelling.feed([i]) for i in (3, 12, 13, 3)] == [" key", "", "", "<de key"]
    assert spelling.feed([6]) == "" and spelling.finish() == "\ufffd"


def test_the_cost_of_a_token_does_not_grow():
    """What waits is short, however long the stream is."""
    spelling = Spelling(PIECES, with_tags=False)
    for _ in range(20_000):
        spelling.feed([2, 3, 4])
    assert len(spelling._held) < 10 and vars(spelling).keys() == vars(Spelling(PIECES)).keys()


RULES = [
    ({}, [2, 3], "the key"),
    ({}, [1, 2], "the"),  # a leading space goes, one of each piece
    ({}, [19, 2], "  the"),
    ({"leading_spaces": "one"}, [1, 2], " the"),
    ({"leading_spaces": "one"}, [1, 1, 2], "  the"),
    ({"leading_spaces": "none"}, [2, 3], " the key"),
    ({"silent": (2,)}, [2, 3, 4], "keys"),
    ({}, [0, 3], " \u2047  key"),
    ({"unknown_text": "*"}, [0, 3], "* key"),
    ({"unknown": "s", "unknown_text": "?"}, [0, 4], "<unk>?"),
    ({}, [6, 7, 8, 4], "\u20acs"),
    ({}, [6, 7, 4], "\ufffd\ufffds"),
    ({}, [6, 7], "\ufffd\ufffd"),
    ({}, [9, 2], "\ufffd the"),
    ({"plain": (9,)}, [9, 2], "<0xFF> the"),
    ({"plain": (7,)}, [6, 7, 8], "\ufffd<0x82>\ufffd"),
]


@pytest.mark.parametrize(("rule", "ids", "text"), RULES)
def test_pieces_are_spelled_by_their_rule(rule, ids, text):
    assert detokenize(Pieces(PIECES, SpellingRule(**rule)), ids) == text
    if not rule:
        assert detokenize(PIECES, ids) == text


def test_language_tags_are_found_and_taken_out():
    assert split_tags("Hallo. <de-DE> Oui.<fr-FR>") == ("Hallo. Oui.", ("de-DE", "fr-FR"))
    assert split_tags("a <de> <DE-de> <de-DEU>") == ("a <de> <DE-de> <de-DEU>", ())
    assert tag_tokens([*PIECES, "x<en-US>", "<en-US>x"]) == {"de-DE": 10, "fr-FR": 11}


def test_special_pieces_are_no_text():
    special = ("<unk>", "[UNK]", "\u2581<de-DE>", "\u2581\u2581[x]", "<0x41>")
    assert [p for p in (*special, "a", "<", ">", "<>", "[]", "a<b>", "<b>a", "\u2581", "[a") if is_special(p)] == [*special]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a 0\nb 1\n", None),
        ("a 0\r\n\u2581 1", None),
        ("a b 0\n", None),  # a space is no end of a piece
        ("a" * 256 + " 0\n", None),
        ("a" * 257 + " 0\n", "line 1 is not a token"),
        ("a 1\n", "line 1 is not a token"),
        ("a 0\nb 2\n", "line 2 is not a token"),
        ("a 0\nb\n", "line 2 is not a token"),
        ("a 0\n 1\n", "line 2 is not a token"),
        ("a\x07 0\n", "line 1 is not a token"),
        (b"\xff 0\n", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_tokens_are_a_piece_and_its_id_a_line(tmp_path, content, found):
    path = tmp_path / "tokens.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if found:
        with pytest.raises(ArtifactError, match=found):
            read_tokens(path)
        return
    pieces = read_tokens(path)
    assert pieces == [line.rpartition(" ")[0] for line in content.splitlines()] and pieces.rule == SpellingRule()


def test_tokens_have_a_rule_beside_them_and_a_bound(tmp_path, monkeypatch):
    path = tmp_path / "tokens.txt"
    path.write_text("a 0\nb 1\n")
    (tmp_path / "spelling.json").write_text('{"silent": [1], "leading_spaces": "one"}')
    assert read_tokens(path).rule == SpellingRule((1,), leading_spaces="one")
    (tmp_path / "spelling.json").write_text('{"leading_spaces": "two"}')
    with pytest.raises(ArtifactError, match=r"spelling\.json"):
        read_tokens(path)
    (tmp_path / "spelling.json").unlink()
    monkeypatch.setattr(tokens, "MOST_BYTES", 8)
    assert read_tokens(path) == ["a", "b"]
    monkeypatch.setattr(tokens, "MOST_BYTES", 7)
    with pytest.raises(ArtifactError, match="more than 7 bytes"):
        read_tokens(path)
    assert [is_piece(one) for one in ("a", "", None, 1, "a" * 256, "a" * 257, "a\n")] == [
        True,
        False,
        False,
        False,
        True,
        False,
        False,
    ]
