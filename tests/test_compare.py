"""`nemoport compare`: two sides on the same recordings. A damaged one shows in frames, tokens and texts; equal ones are equal."""

import json
import shutil
from dataclasses import replace

import damage
import numpy as np
import pytest
from test_foreign import genai

from nemoport.cli import main
from nemoport.errors import UsageError
from nemoport.pipeline import compare as module
from nemoport.pipeline.compare import Comparison, Ran, compare, rows
from nemoport.pipeline.side import open_side
from nemoport.score import WordCounts


@pytest.fixture(scope="module")
def corpus(eval_corpus):
    return replace(eval_corpus, utterances=eval_corpus.utterances[:3])


@pytest.fixture(scope="module")
def ours(build):
    return open_side(str(build))


def test_a_side_beside_itself_is_equal(ours, corpus):
    found = compare(ours, ours, corpus, 6).to_dict()
    assert found["frames"] == {"compared": 3, "decibels": None, "largest": 0.0}
    assert (found["tokens"], found["texts"], found["bytes_ratio"]) == ({"same": 3}, {"same": 3}, 1.0)
    assert found["wer_difference_points"] == [0, 0, 0] and found["wer_percent"][0] == found["wer_percent"][1] > 0
    assert found["interface"] == [] and 0.2 < found["speed"]["b_over_a"] < 5


def test_a_damaged_side_shows(build, ours, corpus, tmp_path):
    other = damage.copy_build(build, tmp_path / "build")
    damage.edit_weight(other, "encoder_model.onnx", damage.is_matrix, damage.shuffle_scales)
    found = compare(ours, open_side(str(other / "fp32")), corpus, 6).to_dict()
    assert found["frames"]["compared"] == 3 and found["frames"]["decibels"] < 10
    assert found["tokens"]["same"] < 3 and found["texts"]["same"] < 3


def test_anybodys_folder_beside_ours(build, ours, corpus, tmp_path):
    """Other names, axes and types, the same function."""
    folder = tmp_path / "theirs"
    genai(build, folder)
    shutil.copy(build / "shared" / "tokens.txt", folder / "tokens.txt")
    theirs = open_side(str(folder))
    found = compare(ours, theirs, corpus, 6).to_dict()
    assert found["frames"]["decibels"] is None or found["frames"]["decibels"] > 100
    assert found["tokens"] == {"same": 3} and found["texts"] == {"same": 3}
    assert any(line.startswith("audio_features: ") and line.endswith("only B") for line in found["interface"])
    assert set(found["b"]["graphs"]) == {"encoder.onnx", "decoder.onnx", "joint.onnx"}
    assert found["b"]["bytes"] == sum((folder / name).stat().st_size for name in found["b"]["graphs"])
    with pytest.raises(UsageError, match="no model of this name"):
        open_side(str(folder), "int8")


# What is reckoned


def comparison(ours, runs, counts=()):
    return Comparison(ours, ours, (6, 6), 10.0, list(runs), list(counts))


def ran(frames, seconds=1.0, tokens=(1,)):
    return Ran(list(tokens), "", np.array(frames, np.float32), seconds)


def test_frames_of_other_counts_are_not_compared(ours):
    found = comparison(ours, [(ran([[1.0, 2.0]]), ran([[1.0, 2.1]])), (ran([[1.0, 2.0]]), ran([[1.0, 2.0], [3.0, 4.0]]))])
    compared, decibels, largest = found.frames()
    assert compared == 1 and largest == pytest.approx(0.1, rel=1e-5) and decibels == pytest.approx(10 * np.log10(500), rel=1e-4)
    assert comparison(ours, [(ran([[1.0]]), ran([[1.0, 2.0]]))]).frames() == (0, None, None)


def test_speed_is_the_median_of_what_ran_in_turn(ours):
    found = comparison(ours, [(ran([[1.0]], a), ran([[1.0]], b)) for a, b in ((2, 1), (4, 1), (3, 1))])
    assert found.ratio() == 3.0 and found.speed(0) == 10 / 9 and found.speed(1) == 10 / 3


def test_word_errors_are_paired(ours):
    counts = [(WordCounts(10, 1, 0, 0), WordCounts(10, 2, 0, 0))] * 5
    found = comparison(ours, [(ran([[1.0]]), ran([[1.0]]))] * 5, counts)
    assert found.wers() == [10.0, 20.0] and found.difference().lower == found.difference().upper == 10.0
    assert comparison(ours, [(ran([[1.0]]), ran([[1.0]]))]).difference() is None


def test_other_vocabularies_have_no_tokens_in_common(ours):
    found = comparison(ours, [(ran([[1.0]]), ran([[1.0]]))])
    assert found.same_tokens() == 1
    found.b = replace(ours, pieces=[*ours.pieces[1:], "x"])
    assert found.same_tokens() is None and ("same tokens", "", "", "other vocabularies") in rows(found)


def test_lookaheads_are_the_largest_that_both_have(ours):
    few, offline = replace(ours, lookaheads=(6, 1)), replace(ours, lookaheads=(None,))
    assert module._lookaheads(ours, few, None) == (6, 6) and module._lookaheads(ours, few, 1) == (1, 1)
    assert module._lookaheads(few, offline, None) == (6, None) and module._lookaheads(offline, offline, None) == (None, None)
    assert module._lookaheads(few, replace(ours, lookaheads=(3,)), None) == (6, 3)
    with pytest.raises(UsageError, match="does not serve"):
        module._lookaheads(ours, few, 13)


def test_sides_of_other_rates_are_not_compared(ours, corpus):
    spec = ours.session.spec
    other = type("Other", (), {"spec": replace(spec, frontend=replace(spec.frontend, sample_rate_hz=8000))})()
    with pytest.raises(UsageError, match="other audio"):
        compare(ours, replace(ours, session=other), corpus)


def test_the_command(build, eval_corpus, tmp_path, capsys):
    row = {"audio_filepath": str(eval_corpus.utterances[0].path), "duration": 1.0, "text": eval_corpus.utterances[0].text}
    (tmp_path / "eval.jsonl").write_text(json.dumps(row) + "\n")
    command = ["compare", str(build), str(build / "fp32"), "--corpus", str(tmp_path / "eval.jsonl"), "--lookahead", "1"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a"]["context"] == "lookahead 1"
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "WER %" in out and "times as fast" in out and "equal, in 1 of 1 recordings" in out
    assert main([*command, "--variant-a", "int8"]) == 2
    assert main([*command, "--limit", "0"]) == 2
