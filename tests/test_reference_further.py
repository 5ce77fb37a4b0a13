"""Further training without NeMo: its losses are NeMo's, what is packed, a run that goes on, a .nemo file of what came back."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from quantizing import CALIBRATION

from nemoport.errors import CheckpointError, CorpusError
from nemoport.export.checkpoint import read_checkpoint

torch = pytest.importorskip("torch")
soundfile = pytest.importorskip("soundfile")
pytest.importorskip("sentencepiece")

from nemoport.reference import batches, data, further, network, training_join, training_pack  # noqa: E402


@pytest.fixture(scope="module")
def rows():
    """Twelve short clips, of which every third counts as a recording that is used twice."""
    found = [row for row in data.synthetic_rows(CALIBRATION, as_written=False) if row["duration"] < 4][:12]
    return [dict(row, recorded=i % 3 == 0, weight=1 + (i % 3 == 0)) for i, row in enumerate(found)]


@pytest.fixture(scope="module")
def packed(tmp_path_factory, tiny_checkpoint, rows):
    """Two parts: the first has the code and some speech, the other speech alone."""
    out = tmp_path_factory.mktemp("pack")
    first = training_pack.pack(tiny_checkpoint, rows[:0], out, 10**8, "")[0] / training_pack.PART
    most = first.stat().st_size + 40_000
    parts = training_pack.pack(tiny_checkpoint, rows, out, most, "")
    assert len(parts) == 2 and all((part / training_pack.PART).stat().st_size < most for part in parts)
    return parts


@pytest.fixture(scope="module")
def tiny_checkpoint(random_checkpoint):
    return read_checkpoint(str(random_checkpoint("tiny")))


def unpacked(parts: list[Path], work: Path) -> Path:
    for part in parts:
        with tarfile.open(part / training_pack.PART) as archive:
            archive.extractall(work, filter="data")
    return work


def test_losses_and_gradients_are_nemos(random_checkpoint, rows):
    from nemoport.reference import model, step

    path = random_checkpoint("tiny")
    checkpoint, asr = read_checkpoint(str(path)), model.restore(path)
    given = checkpoint.load_weights()
    ours = network.Network(given, checkpoint.spec)
    assert all(torch.equal(tensor, given[name]) for name, tensor in ours.tensors().items())
    step.prepare(asr, 0, False, False)
    asr.preprocessor.featurizer.dither = 0.0
    asr.decoder.eval()
    ours.decoder_joint.eval()  # without the predictor's dropout
    clips = data.load(rows[:3], training_pack.tokens_of(checkpoint), recorded=False)
    assert [clip.tokens for clip in clips] == [asr.tokenizer.text_to_ids(row["text"]) for row in rows[:3]]
    batch = data.collate([(clip.samples.astype(np.float32) / 32768, clip.tokens) for clip in clips])
    lookahead = checkpoint.spec.streaming.lookaheads[1]
    left = checkpoint.spec.streaming.left_context_enc_frames
    asr.encoder.att_context_size_all = [[left, lookahead]]  # else it draws one in training
    asr.encoder.set_default_att_context_size([left, lookahead])
    ctc = torch.nn.Linear(ours.ctc.in_features, ours.ctc.out_features)
    ours.ctc.load_state_dict(ctc.state_dict())
    expected, found = step.losses(asr, ctc, batch), ours.losses(*batch[:4], lookahead)
    assert [float(one) for one in found] == pytest.approx([float(one) for one in expected], rel=1e-4)
    sum(expected).backward()
    sum(found).backward()
    parameters = dict(asr.named_parameters())
    gradients = ours.tensors(lambda parameter: parameter.grad)
    assert {name for name in given if not name.startswith("preprocessor.")} == parameters.keys()
    for name, parameter in parameters.items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-2, atol=1e-3 * float(parameter.grad.abs().max()))


def test_parts_hold_everything_once(packed, rows, tmp_path, tiny_checkpoint):
    work = unpacked(packed[1:], tmp_path / "some")
    assert not (work / further.START).exists() and batches.read_clips(work)
    clips = batches.read_clips(unpacked(packed, tmp_path / "all"))
    assert len(clips) == sum(row["weight"] for row in rows) and sum(clip.recorded for clip in clips) == 2 * 4
    lengths = [len(clip.samples) for clip in clips]
    assert lengths == sorted(lengths)
    tokens = training_pack.tokens_of(tiny_checkpoint)
    by_text = {tuple(tokens(row["text"])): row for row in rows}
    for clip in clips:  # Opus keeps what is said where it is
        row = by_text[tuple(clip.tokens)]
        samples = soundfile.read(row["audio_filepath"], dtype="int16")[0]
        assert len(samples) == len(clip.samples) and np.corrcoef(samples, clip.samples)[0, 1] > 0.9
    with pytest.raises(CorpusError, match="no speech"):
        training_pack.pack(tiny_checkpoint, rows, tmp_path / "small", 1000, "")


def test_what_is_packed_is_free_of_what_is_held_out(tmp_path):
    manifest = tmp_path / "m.jsonl"
    lines = ["The pelican sang.", "a plain sentence", "another plain one"]
    rows = [
        dict(audio_filepath=f"{i}.opus", text=line, duration=d) for i, (line, d) in enumerate(zip(lines, (2, 2, 18), strict=True))
    ]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    (found,) = training_pack.chosen({}, {manifest: 3}, 0)
    assert (found["text"], found["weight"], found["recorded"]) == ("a plain sentence", 3, True)
    assert training_pack.weighted("a=b.jsonl=3") == (Path("a=b.jsonl"), 3) and training_pack.weighted("a.jsonl") == (
        Path("a.jsonl"),
        1,
    )
    assert len(training_pack.chosen({CALIBRATION: 1}, {}, 0.01)) < len(training_pack.chosen({CALIBRATION: 1}, {}, 0))


def options(**changed) -> argparse.Namespace:
    given = dict(minutes=0.0, steps=5, device="cpu", batch_seconds=6.0, rate=1e-3, ctc_weight=0.1, freeze_subsampling=False)
    return argparse.Namespace(**given | dict(bfloat16=False, processes=0, save_minutes=9.0, seed=0) | changed)


def trained(out: Path) -> dict:
    (out / "joined").write_bytes(training_join.joined(out, further.WEIGHTS))
    return torch.load(out / "joined", weights_only=True)


def test_a_run_that_is_stopped_ends_in_the_same_weights(packed, tmp_path, monkeypatch):
    whole = further.Further(unpacked(packed, tmp_path / "whole"), tmp_path / "out", options())
    before = whole.network.tensors()
    whole.train()
    expected = trained(tmp_path / "out")
    assert expected["step"] == 5
    changed = [name for name, tensor in expected["tensors"].items() if not torch.equal(tensor, before[name])]
    assert len(changed) == len([name for name in before if not name.startswith("preprocessor.")])

    work = unpacked(packed, tmp_path / "stopped")
    first = further.Further(work, tmp_path / "first", options(processes=1))
    show = first._show
    first._show = lambda row: (show(row), first.stop())  # in the first step
    with pytest.raises(SystemExit, match="step 1"):
        first.train()
    assert training_join.joined(tmp_path / "first", further.STATE) == (work / further.STATE).read_bytes()
    with pytest.raises(CorpusError, match=r"no weights.pt"):
        training_join.joined(tmp_path / "first", further.WEIGHTS)
    with pytest.raises(SystemExit, match="another checkpoint"):
        further.Further(work, tmp_path, options(seed=1))
    (fewer := tmp_path / "fewer").mkdir()
    for name in (further.START, further.STATE, "speech-00.jsonl"):
        (fewer / name).symlink_to(work / name)
    with pytest.raises(SystemExit, match="speech"):
        further.Further(fewer, tmp_path, options())
    second = further.Further(work, tmp_path / "first", options())
    assert second.step == 1
    second.train()
    found = trained(tmp_path / "first")
    assert all(torch.equal(tensor, found["tensors"][name]) for name, tensor in expected["tensors"].items())
    assert not list(work.glob("state*")) and not list((tmp_path / "first").glob("state*"))


def test_the_clock_ends_a_run_at_rate_zero(packed, tmp_path, monkeypatch):
    run = further.Further(unpacked(packed, tmp_path), tmp_path / "out", options(steps=0, minutes=0.5))
    monkeypatch.setattr(further.time, "monotonic", iter(range(0, 1000, 5)).__next__)
    monkeypatch.setattr(further, "SHOWN_S", 0.0)
    monkeypatch.setattr(further, "WARM_UP_STEPS", 1)
    run.train()
    rates = [json.loads(line)["rate"] for line in (tmp_path / "out" / further.LOG).read_text().splitlines()]
    assert run.step == len(rates) == 6 and rates[0] == 1e-3 and sorted(rates, reverse=True) == rates and rates[-1] < 1e-4


@pytest.mark.slow
def test_the_script_trains_where_there_is_no_nemo(packed, tmp_path, random_checkpoint):
    """In parts, with the code that was packed alone; NeMo reads what comes back."""
    from nemoport.reference import greedy, model

    start = random_checkpoint("tiny")
    environment = os.environ | dict(WORK=str(tmp_path / "work"), PYTHON=sys.executable)
    for part in packed[1:]:
        subprocess.run(["bash", part / training_pack.SCRIPT, "keep"], env=environment, check=True)
    command = ["bash", packed[0] / training_pack.SCRIPT, "run", tmp_path / "out", "--device", "cpu", "--steps", "3"]
    subprocess.run([*command, "--batch-seconds", "6", "--processes", "2"], env=environment, check=True)
    training_join.join(tmp_path / "out", start, tmp_path / "trained.nemo")
    given, made = model.restore(start).state_dict(), model.restore(tmp_path / "trained.nemo")
    expected = trained(tmp_path / "out")["tensors"]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in made.state_dict().items() if name in expected)
    assert not torch.equal(given["joint.enc.weight"], expected["joint.enc.weight"])
    assert len(greedy.transcribe(made, data.synthetic_rows(CALIBRATION, as_written=False)[:2], None)) == 2
    with pytest.raises(CheckpointError, match="not trained from"):
        training_join.join(tmp_path / "out", training_pack.START, tmp_path / "other.nemo")
