"""Lines of files end with LF or CRLF and nowhere else."""

import json

import pytest

from nemoport.errors import ArtifactError
from nemoport.package.manifest import list_files
from nemoport.text import lines
from nemoport.tokens import read_tokens
from nemoport.validate.gate_result import PASS, GateResult
from nemoport.validate.result_store import read_results, write_results

ENDS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]  # where str.splitlines ends a line besides
LFS = "*.onnx filter=lfs diff=lfs merge=lfs -text"


@pytest.mark.parametrize("end", ENDS, ids=ascii)
def test_lines_end_with_lf_or_crlf_only(end):
    assert lines(f"a{end}b\nc\r\n\r\nd") == [f"a{end}b", "c", "", "d"]
    assert lines(f"{end}\n") == [end]


def test_the_last_line_end_ends_no_line_more():
    assert (lines(""), lines("\n"), lines("a\n"), lines("a\n\n")) == ([], [""], ["a"], ["a", ""])


@pytest.mark.parametrize("end", ENDS, ids=ascii)
def test_a_piece_that_no_terminal_holds_is_named_as_it_is(tmp_path, end):
    (tmp_path / "tokens.txt").write_bytes(f"a 0\r\nb{end}c 1\r\n".encode())
    with pytest.raises(ArtifactError) as raised:
        read_tokens(tmp_path / "tokens.txt")
    assert "line 2 is not a token" in str(raised.value) and "b" in raised.value.found and "c 1" in raised.value.found


def test_tokens_of_either_line_end_are_read(tmp_path):
    for end in ("\n", "\r\n"):
        (tmp_path / "tokens.txt").write_bytes(end.join(["\u2581a 0", "\u00a0 1", "\u3000b 2", ""]).encode())
        assert read_tokens(tmp_path / "tokens.txt") == ["\u2581a", "\u00a0", "\u3000b"]


@pytest.mark.parametrize("end", ENDS, ids=ascii)
def test_results_may_quote_any_text(tmp_path, end):
    result = GateResult("tokens", "fp32", "", PASS, evidence=f'u: "a{end}b"')
    write_results(tmp_path / "a.jsonl", [result, result])
    assert read_results(tmp_path / "a.jsonl") == [result, result]
    if end >= "\x85":  # as another tool writes JSON
        row = json.dumps(json.loads((tmp_path / "a.jsonl").read_text().split("\n")[0]), ensure_ascii=False)
        (tmp_path / "a.jsonl").write_text(row + "\n", encoding="utf-8")
        assert read_results(tmp_path / "a.jsonl") == [result]


@pytest.mark.parametrize("end", ENDS, ids=ascii)
def test_gits_lines_are_those_of_git(tmp_path, end):
    """One that Python would cut into two harmless ones is one to git."""
    (tmp_path / ".gitattributes").write_bytes(f"{LFS}\r\n{LFS}\n".encode())
    assert list(list_files(tmp_path)) == []
    (tmp_path / ".gitattributes").write_bytes(f"{LFS}{end}{LFS}\n".encode())
    assert list(list_files(tmp_path)) == [".gitattributes"]
