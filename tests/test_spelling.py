"""Text of a stream as it comes: what is printed is never changed, and all of it is the text of the whole."""

import numpy as np
import pytest

from nemoport.tokens import Spelling, detokenize, split_tags

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
