"""Every kind of SentencePiece model: tokens spelled as NeMo's tokenizer spells them, whole and live; others refused by name."""

import io
import random

import pytest
import sentencepiece

from nemoport.export.known_options import tokenizer_problems
from nemoport.export.sentencepiece_model import read_model
from nemoport.tokens import Pieces, Spelling, SpellingRule, detokenize, read_tokens

USUAL = {"vocab_size": 120, "bos_id": -1, "eos_id": -1, "pad_id": -1, "unk_id": 0, "hard_vocab_limit": False}
MODELS = {
    "BPE": {"model_type": "bpe"},
    "unigram": {"model_type": "unigram"},
    "characters": {"model_type": "char"},
    "words": {"model_type": "word"},
    "bytes": {"model_type": "bpe", "byte_fallback": True, "vocab_size": 360, "character_coverage": 0.98},
    "unigram with bytes": {"model_type": "unigram", "byte_fallback": True, "vocab_size": 360, "character_coverage": 0.98},
    "user symbols": {"model_type": "bpe", "user_defined_symbols": ["<sep>", "[noise]", "▁▁", "▁<x>", "<0x41>", "<en-US>", "##a"]},
    "control symbols": {"model_type": "bpe", "control_symbols": ["<ctl>", "[CLS]"]},
    "start, end, padding": {"model_type": "bpe", "bos_id": 1, "eos_id": 2, "pad_id": 3},
    "space as a suffix": {"model_type": "bpe", "treat_whitespace_as_suffix": True},
    "no space before": {"model_type": "bpe", "add_dummy_prefix": False},
    "spaces kept": {"model_type": "bpe", "remove_extra_whitespaces": False},
    "spaces kept, none before": {"model_type": "bpe", "remove_extra_whitespaces": False, "add_dummy_prefix": False},
    "another unknown": {"model_type": "bpe", "unk_piece": "[UNK]", "user_defined_symbols": ["<unk>"]},
    "another text for unknown": {"model_type": "bpe", "unk_surface": "*"},
    "pieces over words": {"model_type": "bpe", "split_by_whitespace": False, "vocab_size": 150},
    "case folded": {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc_cf"},
    "all at once": {
        "model_type": "bpe",
        "byte_fallback": True,
        "vocab_size": 380,
        "bos_id": 1,
        "eos_id": 2,
        "remove_extra_whitespaces": False,
        "user_defined_symbols": ["▁▁", "<0x100>"],
        "unk_surface": "▁?",
    },
}


def lines() -> list[str]:
    rng = random.Random(0)
    words = "alpha beta gamma émigré naïve über straße it's 12 o'clock , ; speech あい कख 😀".split()
    return [" ".join(rng.choice(words) for _ in range(8)) for _ in range(300)]


def trained(**options) -> bytes:
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines()), model_writer=stream, num_threads=1, minloglevel=2, **{**USUAL, **options}
    )
    return stream.getvalue()


@pytest.fixture(scope="module", params=MODELS)
def content(request) -> bytes:
    return trained(**MODELS[request.param])


@pytest.fixture(scope="module")
def theirs(content, tmp_path_factory):
    from nemo.collections.common.tokenizers import SentencePieceTokenizer

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(content)
    return SentencePieceTokenizer(str(path))


@pytest.fixture(scope="module")
def pieces(content) -> Pieces:
    model = read_model(content)
    return Pieces((text for text, _ in model.pieces), model.rule())


def sequences(pieces, count: int):
    """Ids at random; half of them special ones, which are rare among all."""
    rng = random.Random(1)
    special = [i for i, piece in enumerate(pieces) if piece[0] in "<[▁#" and (len(piece) < 4 or piece[-1] in ">]a")]
    for _ in range(count):
        yield [rng.choice(special) if rng.random() < 0.5 else rng.randrange(len(pieces)) for _ in range(rng.randint(1, 9))]


def test_the_pieces_are_read_without_the_library(pieces, theirs):
    assert pieces == theirs.ids_to_tokens(list(range(theirs.vocab_size)))


def test_text_is_nemos(pieces, theirs):
    for ids in sequences(pieces, 2000):
        assert detokenize(pieces, ids) == theirs.ids_to_text(ids), [pieces[i] for i in ids]


def test_live_text_is_the_whole(pieces):
    """Each token alone; and what waits is less than a character."""
    for ids in sequences(pieces, 300):
        spelling = Spelling(pieces)
        parts = [spelling.feed([index]) for index in ids]
        rest = spelling.finish()
        assert "".join([*parts, rest]) == detokenize(pieces, ids) and len(rest.encode()) <= 9


def test_the_rule_is_in_the_build(pieces, content, tmp_path):
    """Beside tokens.txt where it is not the usual one; and it is read from there."""
    from dataclasses import asdict

    from nemoport.files import json_bytes

    (tmp_path / "tokens.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(pieces)), encoding="utf-8")
    assert read_tokens(tmp_path / "tokens.txt").rule == SpellingRule()
    (tmp_path / "spelling.json").write_bytes(json_bytes(asdict(pieces.rule)))
    found = read_tokens(tmp_path / "tokens.txt")
    assert found == pieces and found.rule == pieces.rule


def test_usual_models_need_no_rule():
    for name in ("BPE", "unigram", "bytes", "space as a suffix", "no space before"):
        assert read_model(trained(**MODELS[name])).rule() == SpellingRule()


@pytest.mark.parametrize("size", [0, 1, 40, 333])
def test_damaged_models_are_refused(size):
    content = trained(**MODELS["BPE"])
    for damaged in (content[: len(content) - 1 - size], b"\xff" * (size + 1), content[size + 1 :]):
        try:
            model = read_model(damaged)
        except ValueError:
            continue
        assert len(model.pieces) <= len(damaged)


@pytest.mark.parametrize(
    "section, reason",
    [
        ({"type": "wpe", "vocab_path": "nemo:vocab.txt"}, "tokenizer.type is 'wpe', not 'bpe'"),
        ({"type": "agg", "langs": {"en": {"type": "bpe"}, "es": {"type": "bpe"}}}, "tokenizer.type is 'agg', not 'bpe'"),
        ({"langs": {"en": {"type": "bpe"}}}, "tokenizer.type is 'agg', not 'bpe'"),
        ({"type": "BPE", "custom_tokenizer": {"_target_": "x.CanaryTokenizer"}}, "tokenizer.custom_tokenizer is"),
        ({"type": "bpe", "special_tokens": {"a": "<a>"}}, "tokenizer.special_tokens is"),
    ],
)
def test_another_tokenizer_is_refused_by_its_name(section, reason):
    from nemoport.export.advice import advice

    (problem,) = tokenizer_problems(section)
    assert problem.startswith(reason) and "tokenizer" in advice([problem])
    assert not tokenizer_problems({"type": "bpe", "custom_tokenizer": None, "model_path": "nemo:x"})
