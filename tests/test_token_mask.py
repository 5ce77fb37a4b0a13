"""Restriction of the tokens: to scripts, and to a list; greedy and with a beam."""

import numpy as np
import pytest

from nemoport.cli.__main__ import main
from nemoport.errors import UsageError
from nemoport.recognizer import Recognizer
from nemoport.session import Session
from nemoport.token_mask import MaskedSession, allowed_tokens, scripts_of

PIECES = {
    "\u2581der": {"Latin"}, "\u00e9": {"Latin"}, "e\u0301": {"Latin"}, "\uff41": {"Latin"}, "\u00aa": {"Latin"},
    "\u0434\u0430": {"Cyrillic"}, "\u0434a": {"Cyrillic", "Latin"}, "\u03b1": {"Greek"}, "\u2126": {"Greek"},
    "\u0939\u0948": {"Devanagari"}, "\u093f": {"Devanagari"}, "\u307e\u3059": {"Hiragana"}, "\u30e9": {"Katakana"},
    "\u30fc": set(), "\u5b57": {"Han"}, "\u3005": {"Han"}, "\ud55c": {"Hangul"}, "\u0647": {"Arabic"}, "\u05d0": {"Hebrew"},
    "\u0301": set(), "\u2600\ufe0f": set(), "\u2581": set(), "7": set(), "\u0967": set(), ".": set(),
    "\u3002": set(), "\u20ac": set(), "<unk>": set(), "<de-DE>": set(), "\u2581<EOU>": set(), "[UNK]": set(),
    "<0x41>": {"Latin"}, "<0x20>": set(), "<0xC3>": {"bytes"}, "bytes": {"Latin"},
}  # fmt: skip


@pytest.mark.parametrize(("piece", "scripts"), PIECES.items())
def test_scripts_of_a_piece(piece, scripts):
    assert scripts_of(piece) == scripts


def test_a_token_is_allowed_whose_letters_all_are_of_the_scripts():
    pieces = list(PIECES)
    for scripts in (["latin"], ["Cyrillic", "LATIN"], ["Han", "Hiragana", "Katakana"]):
        allowed = allowed_tokens(pieces, scripts, None)
        assert list(allowed) == [found <= {name.title() for name in scripts} for found in PIECES.values()]
    assert allowed_tokens(pieces, [], None).all()


@pytest.mark.parametrize(
    ("scripts", "content", "found"),
    [
        (["Cyrillic"], None, "Cyrillic"),
        (["Latim"], None, "Latim"),
        (["bytes"], None, "Bytes"),
        ("Latin", None, "'Latin'"),
        ([], "", "no line"),
        ([], "a 1\n", "'a 1'"),
        ([], "a\n", "'a'"),
        ([], b"\xff", "utf-8"),
        ([], False, "No such file"),
    ],
)
def test_what_cannot_be_used_is_named(scripts, content, found, tmp_path):
    mask = None if content is None else tmp_path / "mask.txt"
    if mask and content is not False:
        mask.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as raised:
        allowed_tokens(["a", "<0xC3>"], scripts, mask)
    assert found in raised.value.found


def test_a_mask_has_lines_of_the_vocabulary(tmp_path):
    (tmp_path / "mask.txt").write_bytes("a 0\r\n\u2028 2\n".encode())
    assert list(allowed_tokens(["a", "b", "\u2028", "\u03b1"], [], tmp_path / "mask.txt")) == [True, False, True, False]
    assert list(allowed_tokens(["a", "b", "\u2028", "\u03b1"], ["Latin"], tmp_path / "mask.txt")) == [True, False, True, False]


class Fixed:
    """Scores of two tokens, blank and two durations."""

    spec = initial_state = encode = stack = unstack = None
    scores = np.array([[[3.0, 2.0, 1.0, 9.0, 8.0]]], np.float32)

    def step(self, frames, tokens, state):
        return self.scores, state


def test_blank_and_durations_keep_their_scores():
    session: Session = MaskedSession(Fixed(), np.array([False, True]))  # type: ignore[arg-type]
    scores, _ = session.step(np.zeros(0), np.zeros(0), (np.zeros(0), np.zeros(0)))
    assert scores[0, 0].tolist() == [-10000, 2, 1, 9, 8] and Fixed.scores[0, 0, 0] == 3


@pytest.fixture(scope="module")
def mask(build, tmp_path_factory):
    """All tokens but those with an a."""
    lines = (build / "shared" / "tokens.txt").read_text(encoding="utf-8").split("\n")
    path = tmp_path_factory.mktemp("mask") / "mask.txt"
    path.write_text("\n".join(line for line in lines if "a" not in line), encoding="utf-8")
    return path


@pytest.mark.parametrize("beam", [1, 4])
def test_greedy_and_beam_emit_what_is_allowed(beam, build, mask, eval_corpus):
    samples = [("", eval_corpus.utterances[0].samples())]
    free, latin, without = (
        next(Recognizer.open(build / "fp32", threads=1, beam=beam, **options).transcribe(samples))
        for options in ({}, {"scripts": ["Latin"]}, {"token_mask": mask})
    )
    assert "a" in free.text and latin.tokens == free.tokens
    assert without.text and "a" not in without.text and all(0 <= c <= 1 for c in without.token_confidences)


def test_a_hotword_that_the_restriction_forbids_is_refused(build, mask):
    with pytest.raises(UsageError, match="alaska"):
        Recognizer.open(build / "fp32", threads=1, beam=2, hotwords=["alaska"], token_mask=mask)


def test_on_the_command_line(build, mask, eval_corpus, capsys):
    audio = str(eval_corpus.utterances[0].path)
    assert main(["transcribe", str(build / "fp32"), audio, "--script", "latin", "--tokens", str(mask)]) in (0, None)
    assert "a" not in capsys.readouterr().out.split("\t")[1]
    assert main(["transcribe", str(build / "fp32"), audio, "--script", "Greek"]) == 2
    assert "Latin" in capsys.readouterr().err
