"""Core ML of offline models, as the programs that the packages are made from: NeMo's tokens, windows, damage, the package."""

import shutil
from dataclasses import replace
from pathlib import Path

import damage
import numpy as np
import pytest
import torch
from contract import runtime_problems

from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.targets import export_target, targets
from nemoport.package.assemble import package
from nemoport.package.verify import verify
from nemoport.recognizer import Recognizer
from nemoport.reference.random_checkpoint import pseudo_speech
from nemoport.runtimes import open_session
from nemoport.speech.corpus import read_corpus
from nemoport.validate import gates
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, PASS, GateResult, artifact_sha256
from nemoport.validate.limits import limits_of
from nemoport.validate.oracle import record_oracle
from nemoport.validate.result_store import results_path, write_results

coremltools = pytest.importorskip("coremltools")
REFERENCE = Path(__file__).parent.parent / "reference"
FP32, INT8 = "coreml-fp32", "coreml-int8"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint():
    return read_checkpoint(str(REFERENCE / "checkpoints" / "offline-tdt.nemo"))


def export(checkpoint, build, precision, windows_s=(3, 8)):
    return export_target(checkpoint, build, "coreml", precision, None, windows_s=windows_s, progress=lambda line: None)


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("coreml") / "build"
    for precision, windows_s in (("fp32", (3, 8)), ("int8", (8,))):
        export(checkpoint, folder, precision, windows_s)
    return folder


@pytest.fixture(scope="module")
def context_of(checkpoint, tmp_path_factory):
    whole = read_corpus(REFERENCE / "audio" / "eval-tdt.jsonl", 16000)
    short = sorted((u for u in whole.utterances if u.seconds < 8), key=lambda u: u.seconds)
    corpus = replace(whole, utterances=(*short[:140:20], short[-1]))
    oracle = record_oracle(checkpoint, corpus, tmp_path_factory.mktemp("oracle"))
    return lambda folder, variant=FP32: Context(folder / variant, limits_of(variant), checkpoint, corpus, oracle, threads=1)


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "build")


def failing(context, *names):
    return [name for name in names if any(r.status == FAIL for r in gates.run_gate(name, context))]


def edit_program(folder, variant, graph, edit):
    path = folder / variant / f"{graph}.pt2"
    program = torch.export.load(path)
    edit(program.state_dict)
    torch.export.save(program, path)
    damage.seal(folder / variant)


@pytest.mark.slow
def test_the_programs_pass_their_gates(made, context_of):
    assert failing(context_of(made), "contract", "numeric", "tokens", "batch", "wer", "words") == []
    assert failing(context_of(made, INT8), "contract", "numeric", "wer", "cost") == []


@pytest.mark.slow
def test_damage_is_rejected(copy, context_of, checkpoint):
    def durations(weights):
        weights["head.bias"].data[-5:] += torch.tensor([9.0, 0, 0, 0, -9])

    def shuffle(weights):
        for name, weight in weights.items():
            if "linear" in name and name.endswith(".weight"):
                weight.data = torch.from_numpy(damage.shuffle_scales(weight.numpy())).float()

    edit_program(copy, FP32, "Joint", durations)
    assert "tokens" in failing(context_of(copy), "tokens")
    edit_program(copy, INT8, "Encoder_8s", shuffle)
    assert "numeric" in failing(context_of(copy, INT8), "numeric")
    shutil.rmtree(copy / FP32 / "Encoder_3s.mlpackage")
    shutil.copytree(copy / FP32 / "Encoder_8s.mlpackage", copy / FP32 / "Encoder_3s.mlpackage")
    damage.seal(copy / FP32)
    assert failing(context_of(copy), "contract") == ["contract"]


@pytest.mark.slow
def test_a_recording_goes_to_the_shortest_window(made):
    session = open_session(Artifact.open(made / FP32), threads=1, built_here=True)
    opened, run = [], session.run
    session.run = lambda name, feeds: opened.append(name) or run(name, feeds)
    mel = np.random.default_rng(0).normal(size=(2, 128, 301)).astype(np.float32)
    frames, counts, _ = session.encode(mel, np.array([300, 301]), session.initial_state(2))
    assert opened == ["encoder_3s", "encoder_8s"] and counts.tolist() == [38, 38] and frames.shape == (2, 38, 176)
    with pytest.raises(UsageError, match="longer than every window"):
        session.encode(np.zeros((1, 128, 801), np.float32), np.array([801]), session.initial_state(1))


@pytest.mark.parametrize("preset", ["tiny-ctc"])
def test_ctc(random_checkpoint, tmp_path, preset):
    """The tokens and times of the ONNX graphs, which test_ctc.py compares with NeMo's."""
    checkpoint = read_checkpoint(str(random_checkpoint(preset)))
    export_checkpoint(checkpoint, tmp_path)
    export(checkpoint, tmp_path, "fp32", (4,))
    assert [p for p in runtime_problems(Artifact.open(tmp_path / FP32), checkpoint.spec) if p] == []
    found = []
    for folder in ("fp32", FP32):
        recognizer = Recognizer.open(tmp_path / folder, threads=1, built_here=True)
        spoken = [(str(seed), pseudo_speech(seed, seconds)) for seed, seconds in ((77, 2.0), (78, 3.0))]
        found.append({one.id: (one.tokens, one.token_seconds) for one in recognizer.transcribe(spoken, streams=2)})
    assert found[0] == found[1] and all(tokens for tokens, _ in found[0].values())


def test_what_is_not_made_is_refused_by_name(checkpoint, random_checkpoint, tmp_path):
    streaming_ctc = read_checkpoint(str(random_checkpoint("tiny-streaming-ctc")))
    assert targets()["coreml"].precisions_of(streaming_ctc.spec) == targets()["coreai"].precisions_of(checkpoint.spec) == []
    with pytest.raises(UsageError, match="coreml-fp32 cannot be made of this model") as refused:
        export_target(streaming_ctc, tmp_path, "coreml", "fp32", None, progress=print)
    assert "streaming-ctc: the graphs of chunks end in the joint's projection" in str(refused.value)
    pytest.importorskip("coreai_torch")
    with pytest.raises(UsageError, match="coreai-fp32 cannot be made of this model"):
        export_target(checkpoint, tmp_path, "coreai", "fp32", None, progress=print)


@pytest.mark.slow
def test_the_package(made, tmp_path):
    build = shutil.copytree(made, tmp_path / "build")
    result = GateResult("wer", FP32, artifact_sha256(build / FP32), PASS, "difference", 0.0, 0.3, "WER points", 9)
    write_results(results_path(build, FP32), [result])
    dist = package(build, tmp_path / "dist", [FP32], licence="apache-2.0", layout="coreml", required_passes=lambda *_: [])
    assert "not run" in verify(dist)[-1]
    card = (dist / "README.md").read_text()
    assert "offline speech recognition in Core ML" in card and "Encoder_8s.mlpackage" in card and "up to 3 or 8 s" in card
    assert "durations [0, 1, 2, 3, 4]" in card
