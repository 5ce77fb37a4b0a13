"""Each kind in OpenVINO and LiteRT: the tokens and times of the ONNX graphs, which test_ctc.py, test_hybrids.py and
test_local_attention.py compare with NeMo's; contract and package."""

from __future__ import annotations

from dataclasses import replace

import pytest
from contract import runtime_problems

from nemoport.artifact import Artifact
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.targets import export_target
from nemoport.package.assemble import package
from nemoport.package.verify import verify
from nemoport.recognizer import Recognizer
from nemoport.reference.random_checkpoint import pseudo_speech
from nemoport.spec import CTC
from nemoport.validate.gate_result import PASS, GateResult, artifact_sha256
from nemoport.validate.result_store import results_path, write_results

AUDIO = [pseudo_speech(seed, 3.0) for seed in (77, 78, 79)]
PRESETS = ["tiny-ctc", "tiny-streaming-ctc", "tiny-rnnt", "tiny-tdt_ctc-local"]


def transcripts(folder):
    recognizer = Recognizer.open(folder, threads=1)
    found = recognizer.transcribe([(str(i), samples) for i, samples in enumerate(AUDIO)], streams=2)
    return {one.id: (one.tokens, one.token_seconds) for one in found}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("target", ["openvino", "litert"])
def test_as_onnx(random_checkpoint, tmp_path, target, preset):
    needed = {"openvino": ("openvino", "nncf"), "litert": ("ai_edge_litert", "litert_torch")}
    for module in needed[target]:
        pytest.importorskip(module)
    checkpoint, build = read_checkpoint(str(random_checkpoint(preset))), tmp_path / "build"
    if checkpoint.spec.streaming:
        spec = checkpoint.spec
        lookaheads = spec.streaming.lookaheads[:1]  # a signature takes seconds to convert
        checkpoint = replace(checkpoint, spec=replace(spec, streaming=replace(spec.streaming, lookaheads=lookaheads)))
    export_checkpoint(checkpoint, build)
    windows_s = (4,) if target == "litert" and not checkpoint.spec.streaming else ()
    variant = f"{target}-fp32"
    export_target(checkpoint, build, target, "fp32", None, windows_s=windows_s, progress=lambda line: None)
    artifact = Artifact.open(build / variant)
    assert [problem for problem in runtime_problems(artifact, checkpoint.spec) if problem] == []
    wanted = transcripts(build / "fp32")
    assert transcripts(build / variant) == wanted and sum(len(tokens) for tokens, _ in wanted.values()) > 5
    result = GateResult("wer", variant, artifact_sha256(build / variant), PASS, "difference", 0.0, 0.3, "WER points", 9)
    write_results(results_path(build, variant), [result])
    dist = package(build, tmp_path / "dist", [variant], licence="apache-2.0", layout=target, required_passes=lambda *_: [])
    assert f"loads in {target}" in verify(dist)[-1]
    card = (dist / "README.md").read_text()
    if checkpoint.spec.head == CTC:
        assert (
            "CTC" in card and "example.py" not in card and {"openvino": "nemotron_ctc", "litert": "ctc_<frames>"}[target] in card
        )
