"""The tokenizer.json of Hugging Face tokenizers, as the SentencePiece model that it was made from.

transformers' converters write a BPE model of SentencePiece as tokenizer.json. From that one a model of the same pieces, types,
order of merges and normalisation is written back: NeMo reads it, and both texts and tokens are those of the original. What a
tokenizer.json does not keep has SentencePiece's usual value: what is printed for the unknown piece, and that spaces before a text
go.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Any

from nemoport.export.sentencepiece_model import BYTE, CONTROL, NORMAL, UNKNOWN_TYPE, USER_DEFINED, write_model
from nemoport.text import clipped
from nemoport.tokens import BYTE_PIECE

MOST_IDS = 1 << 20
# Marked special by transformers' converter, so that its text leaves them out; to SentencePiece they are pieces like others.
_LANGUAGE = re.compile(r"<[a-z]{2,3}-[A-Za-z]{2}>")
_DECODERS = ("Metaspace", "Replace", "ByteFallback", "Fuse", "Strip")  # which spell the pieces as SentencePiece does


def read_tokenizer(content: dict, vocab_size: int) -> tuple[list[str], bytes]:
    """Returns the pieces by id and the bytes of a SentencePiece model of them.

    content: of tokenizer.json; vocab_size: pieces that the model has without blank; those behind are transformers' own. Raises
    ValueError for a tokenizer that is none of SentencePiece's BPE, or that lacks one of these pieces.
    """
    model = _section(content, "model")
    _check_kind(content, model)
    by_id, added = _pieces(model, content.get("added_tokens") or [])
    if not 0 < vocab_size <= len(by_id):
        raise ValueError(f"{len(by_id)} pieces, where the model has {vocab_size}")
    if missing := [str(i) for i in range(vocab_size) if i not in by_id][:3]:
        raise ValueError(f"no piece of id {', '.join(missing)}, where the model has {vocab_size}")
    pieces = [by_id[i] for i in range(vocab_size)]
    if len(set(pieces)) < len(pieces):
        raise ValueError("two ids of one piece")
    unknown = model.get("unk_token")
    if unknown not in pieces:
        raise ValueError(f"unk_token is {clipped(repr(unknown))}, which is no piece of the model")
    types = list(_types(pieces, unknown, added))
    return pieces, write_model(pieces, types, _scores(pieces, types, model.get("merges")), _charsmap(content.get("normalizer")))


def _section(content: dict, name: str) -> dict:
    if not isinstance(found := content.get(name), dict):
        raise ValueError(f"no {name}")
    return found


def _check_kind(content: dict, model: dict) -> None:
    if model.get("type") != "BPE":
        raise ValueError(f"model.type is {clipped(repr(model.get('type')))}, not 'BPE'")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ValueError(f"model.{key} is {clipped(repr(model[key]))}, not absent")
    decoder = _section(content, "decoder")
    parts = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    kinds = [part.get("type") if isinstance(part, dict) else part for part in (parts if isinstance(parts, list) else [parts])]
    if not all(isinstance(kind, str) and kind in _DECODERS for kind in kinds):
        raise ValueError(f"decoder is {clipped(repr(kinds))}, not Metaspace")


def _pieces(model: dict, tokens: Any) -> tuple[dict[int, str], dict[str, bool]]:
    """Returns the pieces by id, and those that are added tokens: whether they are marked as special."""
    by_id: dict[int, str] = {}
    added = {}
    for piece, index in _section(model, "vocab").items():
        _put(by_id, index, piece)
    if not isinstance(tokens, list):
        raise ValueError("added_tokens is no list")
    for token in tokens:
        piece, index = (token.get("content"), token.get("id")) if isinstance(token, dict) else (None, None)
        _put(by_id, index, piece)
        added[piece] = token.get("special") is True
    return by_id, added


def _put(by_id: dict[int, str], index: Any, piece: Any) -> None:
    if type(index) is not int or not 0 <= index < MOST_IDS or not isinstance(piece, str):
        raise ValueError(f"a piece {clipped(ascii(piece))} of id {clipped(repr(index))}")
    if by_id.setdefault(index, piece) != piece:
        raise ValueError(f"two pieces of id {index}")


def _types(pieces: Sequence[str], unknown: str, added: dict[str, bool]) -> Iterator[int]:
    # SentencePiece writes all 256 bytes or none; fewer are pieces that only look like one.
    has_bytes = sum(bool(BYTE_PIECE.fullmatch(piece)) for piece in pieces) == 256
    for piece in pieces:
        if piece == unknown:
            yield UNKNOWN_TYPE
        elif has_bytes and BYTE_PIECE.fullmatch(piece):
            yield BYTE
        elif piece in added:
            yield CONTROL if added[piece] and not _LANGUAGE.fullmatch(piece) else USER_DEFINED
        else:
            yield NORMAL


def _scores(pieces: Sequence[str], types: Sequence[int], merges: Any) -> list[float]:
    """Scores by which SentencePiece merges in the order of `merges`: the first merge that makes a piece has its rank."""
    rank: dict[str, int] = {}
    for merge in merges if isinstance(merges, list) else ():
        parts = merge.split(" ") if isinstance(merge, str) else merge  # older versions write the two in one text
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise ValueError(f"a merge {clipped(repr(merge))}")
        rank.setdefault("".join(parts), len(rank))
    last = len(rank)
    scores = [float(-rank[piece]) if piece in rank else float(-last - i) for i, piece in enumerate(pieces)]
    return [score if kind == NORMAL else 0.0 for score, kind in zip(scores, types, strict=True)]


def _charsmap(normalizer: Any) -> bytes:
    """The table of characters that SentencePiece's normaliser replaces; empty where there is none."""
    inner = normalizer.get("normalizers") if isinstance(normalizer, dict) else None
    for part in (normalizer, *(inner if isinstance(inner, list) else ())):
        if isinstance(part, dict) and part.get("type") == "Precompiled":
            try:
                return base64.b64decode(str(part.get("precompiled_charsmap") or ""), validate=True)
            except binascii.Error as error:
                raise ValueError(f"normalizer: {error}") from error
    return b""
