"""Layouts of CTC models, run by the real packages on the reference models with trained heads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_asr as onnx_asr_package
import pytest
import soundfile
from quantizing import FOR_OFFLINE, short_manifest

from nemoport.artifact import Artifact
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.merged import merged
from nemoport.package.assemble import package
from nemoport.package.layouts import onnx_asr, sherpa_onnx
from nemoport.package.verify import verify
from nemoport.quantize import build_variant
from nemoport.recognizer import Recognizer
from nemoport.runtimes.onnxruntime.merged import MergedSession
from nemoport.spec import CTC
from nemoport.speech.corpus import read_corpus
from nemoport.validate.gate_result import GateResult, artifact_sha256

AUDIO = Path(__file__).parent.parent / "reference" / "audio"
# Name of the reference model -> its speech.
MODELS = {"ctc-offline": "-tdt", "ctc-streaming": ""}
VARIANTS = ("fp32", "fp16", "int8-weight")


@pytest.fixture(scope="module", params=MODELS)
def built(request, ctc_checkpoint, tmp_path_factory):
    """The build, and short utterances."""
    folder = tmp_path_factory.mktemp(request.param)
    export_checkpoint(read_checkpoint(str(ctc_checkpoint(request.param))), folder)
    speech = MODELS[request.param]
    for variant in VARIANTS[1:]:
        build_variant(folder, variant, short_manifest(folder, count=FOR_OFFLINE, speech=speech), progress=lambda line: None)
    utterances = read_corpus(AUDIO / f"eval{speech}.jsonl", 16000).utterances
    return folder, sorted(utterances, key=lambda u: u.seconds)[:12]


def packed(build: Path, dist: Path, layout: str) -> Path:
    for variant in VARIANTS:
        result = GateResult("contract", variant, artifact_sha256(build / variant), "pass", "", 0.0, None, "problems", 77)
        path = build / "results" / f"{variant}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result.to_dict()) + "\n")
    return package(build, dist, VARIANTS, licence="apache-2.0", layout=layout, required_passes=lambda b, v: [])


@pytest.fixture(scope="module")
def transcripts(built):
    folder, utterances = built
    recognizer = Recognizer.open(folder / "fp32", threads=1)
    found = {one.id: one for one in recognizer.transcribe([(u.id, u.samples()) for u in utterances], streams=4)}
    assert sum(len(one.tokens) for one in found.values()) > 50
    return [found[u.id] for u in utterances]


def test_the_example_of_the_card_has_the_same_tokens(built, transcripts, tmp_path):
    """With onnxruntime alone, as a program of its own."""
    folder, utterances = built
    dist = packed(folder, tmp_path / "dist", "native")
    code = re.search(r"```python\n(.*?)```", (dist / "README.md").read_text(), re.DOTALL)
    assert code
    (dist / "example.py").write_text(code[1])
    wav = tmp_path / "one.wav"
    soundfile.write(wav, utterances[0].samples(), 16000)
    command = [sys.executable, str(dist / "example.py"), str(dist), "fp32", str(wav)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == transcripts[0].text


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_graph_holds_both(built, variant):
    folder, utterances = built
    artifact = Artifact.open(folder / variant)
    whole = merged(onnx.load(artifact.encoder), onnx.load(artifact.decoder))
    onnx.checker.check_model(whole)
    assert [output.name for output in whole.graph.output][:2] == ["logprobs", "encoded_lengths"]
    assert [i.name for i in whole.graph.input] == [i.name for i in onnx.load(artifact.encoder).graph.input]


def test_every_package_verifies_and_its_card_has_its_files(built, tmp_path):
    folder, _ = built
    streaming = Artifact.open(folder / "fp32").spec.streaming
    for layout in ("native", "sherpa-onnx") if streaming else ("native", "sherpa-onnx", "onnx-asr"):
        dist = packed(folder, tmp_path / layout, layout)
        assert all("finite frames of silence" in " ".join(lines) for lines in [list(verify(dist))])
        card = (dist / "README.md").read_text()
        assert "input_states_1" not in card and "CTC, " in card
        if layout != "native":
            assert "model[" in card and not list(dist.glob("decoder*"))


def test_the_merged_graph_of_sherpa_onnx_has_the_same_tokens(built, transcripts, tmp_path):
    folder, utterances = built
    sherpa_onnx.lay_out(folder, ["fp32"], tmp_path)
    (graph,) = sherpa_onnx.graphs(tmp_path, "fp32", CTC)
    spec = Artifact.open(folder / "fp32").spec
    session, ours = MergedSession(spec, graph, threads=1), Recognizer.open(folder / "fp32", threads=1)
    whole = Recognizer(session, Artifact.open(folder / "fp32").filterbank(), ours._pieces, ours.lookahead)
    found = whole.transcribe([(u.id, u.samples()) for u in utterances], streams=4)
    assert {one.id: one.tokens for one in found} == {one.id: one.tokens for one in transcripts}


def test_onnx_asr_has_the_same_tokens(built, transcripts, tmp_path):
    """Spaces aside: it keeps two where a token of its own begins with one."""
    folder, utterances = built
    if Artifact.open(folder / "fp32").spec.streaming:
        pytest.skip("onnx-asr has no caches")
    onnx_asr.lay_out(folder, VARIANTS, tmp_path)
    model = onnx_asr_package.load_model("nemo-conformer-ctc", tmp_path)
    for utterance, ours in zip(utterances, transcripts, strict=True):
        assert re.sub(r"\s+", "", model.recognize(utterance.samples())) == ours.text.replace(" ", "")


def test_sherpa_onnx_transcribes_as_its_card_does_it(built, transcripts, tmp_path):
    """Its front end differs from NeMo's, and for offline models most, so a share of the words is equal."""
    folder, utterances = built
    dist = packed(folder, tmp_path / "dist", "sherpa-onnx")
    code = re.search(r"```python\n(.*?)```", (dist / "README.md").read_text(), re.DOTALL)
    assert code
    (dist / "example.py").write_text(code[1])
    wav = tmp_path / "one.wav"
    soundfile.write(wav, utterances[0].samples(), 16000)
    command = [sys.executable, str(dist / "example.py"), str(dist), "", str(wav)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    sys.path.insert(0, str(dist))
    try:
        import example
    finally:
        sys.path.remove(str(dist))
        sys.modules.pop("example", None)
    texts = []
    for utterance in utterances:
        soundfile.write(wav, utterance.samples(), 16000)
        texts.append(example.transcribe(dist, "", wav))
    assert printed == texts[0]
    words = [(set(text.split()), set(ours.text.split())) for text, ours in zip(texts, transcripts, strict=True)]
    shared = sum(len(a & b) for a, b in words) / sum(len(a | b) for a, b in words)
    assert shared > (0.7 if Artifact.open(folder / "fp32").spec.streaming else 0.4)
