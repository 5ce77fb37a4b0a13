"""npm packages on our packages, ten recordings each, by the programs of bench/node: what they say of nemoport's own features.

They are fetched by npm into build/consumers (NEMOPORT_CONSUMERS names another place), beside nothing of the project.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "bench"))

import node_programs  # noqa: E402

from nemoport.export.build import export_checkpoint  # noqa: E402
from nemoport.export.checkpoint import read_checkpoint  # noqa: E402
from nemoport.files import folder_once  # noqa: E402
from nemoport.package.layouts import onnx_asr, parakeet_js, sherpa_onnx, transformers_js  # noqa: E402
from nemoport.quantize import build_variant  # noqa: E402
from nemoport.recognizer import Recognizer  # noqa: E402
from nemoport.speech.corpus import read_corpus  # noqa: E402

pytestmark = pytest.mark.slow
AUDIO = ROOT / "reference" / "audio"
RUNTIMES = ("onnxruntime-node", "onnxruntime-web")


@pytest.fixture(scope="module")
def programs():
    try:
        return node_programs.environment(Path(os.environ.get("NEMOPORT_CONSUMERS", ROOT / "build" / "consumers")) / "node")
    except node_programs.AbsentError as error:
        pytest.skip(str(error))


def built(folder: Path, checkpoint: Path, variants=(), caches=("nemo",), calibration="calibration-tdt.jsonl") -> Path:
    def fill(made: Path) -> None:
        for layout in caches:
            export_checkpoint(read_checkpoint(str(checkpoint)), made, layout)
        for variant in variants:
            build_variant(made, variant, AUDIO / calibration, progress=lambda line: None)

    folder_once(folder, fill)
    return folder


@pytest.fixture(scope="module")
def tdt(shared_folder):
    """The trained TDT model with states of 2 x 640."""
    from nemoport.reference import widen

    folder_once(shared_folder / "wide-offline-tdt", lambda made: widen.write("offline-tdt", made / "wide.nemo"))
    return built(shared_folder / "wide-tdt-build", shared_folder / "wide-offline-tdt" / "wide.nemo", ["fp16"])


@pytest.fixture(scope="module")
def ctc(ctc_checkpoint, shared_folder):
    return built(shared_folder / "ctc-offline-build", ctc_checkpoint("ctc-offline"), ["int8-weight"])


@pytest.fixture(scope="module")
def streaming(shared_folder):
    checkpoint = ROOT / "reference/checkpoints/streaming-en.nemo"
    return built(shared_folder / "node-streaming", checkpoint, ["int8-weight"], ("nemo", "kv"), "calibration.jsonl")


def transcribed(programs, build: Path, variant: str, folder: Path, program: str, /, own_mel=False, **job):
    """Returns what a program says of ten recordings, and nemoport's hypotheses."""
    recognizer = Recognizer.open(build / variant, threads=1)
    corpus = "eval.jsonl" if recognizer.session.spec.streaming else "eval-tdt.jsonl"
    every = read_corpus(AUDIO / corpus, 16000).utterances
    utterances = every[:: len(every) // 10][:10]
    ours = {one.id: one for one in recognizer.transcribe([(u.id, u.samples()) for u in utterances])}
    assert sum(len(one.tokens) for one in ours.values()) > 60
    clips = node_programs.write_clips(recognizer, utterances, folder)
    return node_programs.run(programs, program, clips, ownMel=own_mel, **job), ours


def check_tokens(found, ours) -> None:
    assert found.tokens == {name: list(one.tokens) for name, one in ours.items()}
    assert found.seconds > 0


@pytest.mark.parametrize("own_mel", [False, True])
@pytest.mark.parametrize("variant", ["fp32", "fp16"])
def test_parakeet_js_has_the_same_tokens(programs, tdt, tmp_path, variant, own_mel):
    """Of its own features too, which are NeMo's but for the last bits."""
    dist = tmp_path / "dist"
    dist.mkdir()
    parakeet_js.lay_out(tdt, [variant], dist)
    job = {"folder": str(dist), "suffix": onnx_asr.suffix_of(variant), "bands": 128}
    check_tokens(*transcribed(programs, tdt, variant, tmp_path, "parakeet", own_mel=own_mel, **job))


@pytest.mark.parametrize("variant", ["fp32", "int8-weight"])
def test_transformers_js_says_the_same(programs, ctc, tmp_path, variant):
    """From one file and from shards; of its own features too in fp32."""
    dist = tmp_path / "dist"
    dist.mkdir()
    transformers_js.lay_out(ctc, [variant], dist)
    job = {"folder": str(dist), "dtype": transformers_js.DTYPES[variant][0]}
    for own_mel, limit in ((False, 0), (False, 3_000_000), (variant == "fp32", 0)):
        if limit:
            transformers_js.shard(dist, [variant], limit)
        found, ours = transcribed(programs, ctc, variant, tmp_path, "transformers", own_mel=own_mel, **job)
        assert found.texts == {name: one.text.strip() for name, one in ours.items()}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name, variant", [("streaming", "fp32"), ("streaming", "kv-fp32"), ("tdt", "fp32"), ("ctc", "fp32")])
def test_the_graphs_have_the_same_tokens_behind_the_modules_of_the_page(request, programs, tmp_path, runtime, name, variant):
    build = request.getfixturevalue(name)
    job = {"package": runtime, "folder": str(build), "variant": variant, "asr": str(node_programs.PAGE_MODULES)}
    for own_mel in (False, True):
        check_tokens(*transcribed(programs, build, variant, tmp_path, "graphs", own_mel=own_mel, **job))


@pytest.mark.parametrize("variant", ["fp32", "int8-weight"])
def test_sherpa_onnx_in_node_streams(programs, streaming, tmp_path, variant):
    """As in Python what it says differs by its own front end in a word here and there, see test_sherpa_onnx.py."""
    dist = tmp_path / "dist"
    dist.mkdir()
    sherpa_onnx.lay_out(streaming, [variant], dist)
    job = {"folder": str(dist), "suffix": sherpa_onnx.suffix_of(variant), "head": "rnnt", "streaming": True, "bands": 128}
    found, ours = transcribed(programs, streaming, variant, tmp_path, "sherpa", own_mel=True, **job)
    assert sum(found.texts[name] == one.text.strip() for name, one in ours.items()) >= 8
