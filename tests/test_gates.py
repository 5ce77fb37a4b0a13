"""Each gate passes on the fp32 artifact, and each rejects what it is there to reject."""

import json
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from xml.etree import ElementTree

import damage
import numpy as np
import pytest

from nemoport.artifact import DECODER, ENCODER
from nemoport.chunker import Chunker
from nemoport.errors import ArtifactError, CorpusError, UsageError
from nemoport.speech import longform
from nemoport.validate import gates, limits, run
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, PASS, artifact_sha256
from nemoport.validate.result_store import read_results, required_passes, results_path, write_results
from nemoport.validate.run import built, comparisons, validate

FP32 = "fp32"


@pytest.fixture(scope="module")
def context_of(reference_checkpoint, eval_corpus, oracle):
    """build -> Context of its fp32 variant; over two of the four lookaheads, to be quick, unless told otherwise."""

    def make(build, *, lookaheads=(6, 0), corpus=eval_corpus, variant=FP32, **settings):
        spec = reference_checkpoint.spec
        spec = replace(spec, streaming=replace(spec.streaming, lookaheads=lookaheads))
        return Context(
            build / variant,
            limits.limits_of(variant),
            replace(reference_checkpoint, spec=spec),
            corpus,
            oracle,
            threads=1,  # the runtime's spinning threads starve each other where other tests run beside these
            **settings,
        )

    return make


@pytest.fixture(scope="module", autouse=True)
def one_minute():
    """Of one stream with its long silence, in place of ten, which NeMo would have to run too; `make demo` runs ten."""

    def shorter(variant):
        return limits.limits_of(variant).override("longform", minutes=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(longform, "SILENCE_S", 20.0)
        patch.setattr(run, "limits_of", shorter)
        yield


@pytest.fixture(scope="module")
def validated(build, oracle, eval_corpus, reference_checkpoint, tmp_path_factory):
    """(a build that was validated, the manifest, what was said); of eval_corpus, at all lookaheads."""
    folder = tmp_path_factory.mktemp("validated")
    copy, manifest = damage.copy_build(build, folder / "build"), folder / "some.jsonl"
    rows = [{"audio_filepath": str(u.path), "text": u.text} for u in eval_corpus.utterances]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = []
    assert validate(reference_checkpoint, copy, manifest, baseline=False, threads=1, progress=lines.append)
    return copy, manifest, lines


@pytest.fixture
def copy(build, tmp_path):
    return damage.copy_build(build, tmp_path / "build")


def failing(context, *names):
    """The gates among `names` that fail; each fail tells why."""
    failed = []
    for name in names:
        results = gates.run_gate(name, context)
        assert results
        assert all(r.evidence or r.measured is not None for r in results)
        failed += [name] if any(r.status == FAIL for r in results) else []
    return failed


@pytest.mark.parametrize("gate", limits.limits_of(FP32).required)
def test_fp32_passes(validated, gate):
    results = [r for r in read_results(results_path(validated[0], FP32)) if r.gate == gate]
    assert results
    assert [r for r in results if r.status != PASS] == []
    assert {r.sha256 for r in results} == {artifact_sha256(validated[0] / FP32)}


def test_every_lookahead_flush_rule_and_packet_size_is_judged(validated):
    results = read_results(results_path(validated[0], FP32))
    rules = {f"lookahead {r}, {flush}" for r in (13, 6, 1) for flush in ("full", "nemo")}
    assert {r.case for r in results if r.gate == "tokens"} == rules | {"lookahead 0, nemo", "all", "different", "more or fewer"}
    whole = next(r for r in results if (r.gate, r.case) == ("tokens", "all"))
    assert whole.evidence == "packets of 1, 10, 37, 100, 560, 5000 ms"
    assert {r.case for r in results if r.gate == "batch"} == {
        f"lookahead {r}, {n} streams" for r in (13, 6, 1, 0) for n in (3, 8)
    }


def test_numeric_and_tokens_reject_swapped_caches(context_of, copy):
    damage.edit_graph(copy, ENCODER, damage.reverse_layers)
    assert failing(context_of(copy), "numeric", "tokens", "wer") == ["numeric", "tokens", "wer"]


def test_only_batch_finds_streams_that_mix(context_of, copy):
    damage.edit_graph(copy, ENCODER, damage.roll_streams)
    context = context_of(copy, lookaheads=(6,))
    context.limits = replace(context.limits, streams=1)
    assert failing(context, "batch", "tokens") == ["batch"]


def test_wrong_left_context_is_rejected(context_of, copy, reference_checkpoint):
    damage.shorter_left_context(copy, reference_checkpoint, 56)
    context = context_of(copy, lookaheads=reference_checkpoint.spec.streaming.lookaheads)
    contract = gates.run_gate("contract", context)[0]
    assert contract.status == FAIL
    assert "left_context_enc_frames: expected 70, found 56" in contract.evidence
    assert "input cache_last_channel" in contract.evidence
    assert failing(context_of(copy), "numeric") == ["numeric"]


def test_first_target_0_is_rejected(context_of, copy, reference_checkpoint):
    damage.blank_row_from_token_0(copy, reference_checkpoint.spec.decoding.blank_id)
    assert failing(context_of(copy), "tokens", "numeric") == ["tokens"]


def test_shuffled_scales_are_rejected_even_by_int8_limits(context_of, copy):
    damage.edit_weight(copy, ENCODER, damage.is_matrix, damage.shuffle_scales)
    context = context_of(copy)
    context.limits = replace(limits.limits_of("int8-static"), variant=FP32)
    assert failing(context, "numeric", "tokens") == ["numeric", "tokens"]


def test_truncated_sidecar_fails_every_gate(context_of, copy):
    data = copy / FP32 / f"{ENCODER}.data"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    damage.seal(copy / FP32)
    running = [g for g in limits.limits_of(FP32).required if g != "contract"]  # whose hashes agree with the file
    assert failing(context_of(copy), *running) == running


@pytest.mark.parametrize(
    ("change", "evidence"),
    [
        (damage.nan_in_a_weight, "encoder_model.onnx has weights with values that are not finite"),
        (damage.overflow_in_a_weight, "computes NaN or infinity"),
        (lambda build: damage.nan_in_the_lstm(build / FP32 / DECODER), "decoder_model.onnx has weights with values that are not"),
    ],
)
def test_nan_fails_every_gate_that_runs_the_graph(context_of, copy, change, evidence):
    change(copy)
    damage.seal(copy / FP32)
    results = gates.run_gate("numeric", context_of(copy))
    assert [r.status for r in results] == [FAIL]
    assert evidence in results[0].evidence
    assert failing(context_of(copy), "tokens", "wer", "boundary", "batch") == ["tokens", "wer", "boundary", "batch"]


def test_silent_artifact_is_scored_as_all_deletions(context_of, copy):
    damage.only_blank(copy)
    context = context_of(copy)
    assert failing(context, "tokens", "wer", "boundary", "cost") == ["tokens", "wer", "boundary", "cost"]
    figures = {r.case: r.measured for r in gates.run_gate("wer", context)}
    assert figures["lookahead 6: WER"] == 100.0
    assert figures["lookahead 6: lost"] == len(context.corpus.utterances)


def test_dropped_last_chunk_is_rejected(context_of, build, monkeypatch):
    monkeypatch.setattr(Chunker, "finish", lambda self: [])
    assert failing(context_of(build), "numeric", "tokens", "boundary") == ["numeric", "tokens", "boundary"]


def test_nine_zeros_before_the_first_chunk_are_rejected(context_of, build, monkeypatch):
    """What the published package does."""
    start, spec = Chunker.__init__, context_of(build).spec.streaming

    def with_zeros(self, *arguments):
        start(self, *arguments)
        self._cache = np.zeros((len(self._pending), spec.pre_encode_cache_mel_frames), np.float32)

    monkeypatch.setattr(Chunker, "__init__", with_zeros)
    assert failing(context_of(build), "numeric", "tokens") == ["numeric", "tokens"]


def test_packets_that_change_the_chunks_are_rejected(context_of, build, monkeypatch):
    feed = Chunker.feed
    monkeypatch.setattr(Chunker, "feed", lambda self, mel: feed(self, mel * (1.0 if mel.shape[1] < 4 else 1.001)))
    assert "cut into packets" in gates.run_gate("tokens", context_of(build))[0].evidence


def test_empty_corpus_fails(context_of, build, eval_corpus):
    context = context_of(build, corpus=replace(eval_corpus, utterances=()))
    running = ["batch", "boundary", "numeric", "tokens", "wer"]
    assert failing(context, *running) == running


def test_missing_file_fails_every_gate(context_of, copy):
    (copy / FP32 / f"{DECODER}.data").unlink()
    context = context_of(copy)
    required = limits.limits_of(FP32).required
    assert failing(context, *required) == list(required)
    assert "missing: decoder_model.onnx.data" in gates.run_gate("cost", context)[0].evidence


def test_tampered_file_fails_the_contract(context_of, copy):
    data = copy / FP32 / f"{ENCODER}.data"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert "content differs from its sha256" in gates.run_gate("contract", context_of(copy))[0].evidence


def test_contract_names_every_difference(context_of, copy, reference_checkpoint):
    def change(model):
        model.graph.output[0].name = "frames"
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 65
        model.metadata_props.pop()
        for node in model.graph.node:
            node.output[:] = ["frames" if o == "outputs" else o for o in node.output]

    damage.edit_graph(copy, ENCODER, change)
    (copy / "shared" / "tokens.txt").write_text("a 0\n")
    context = context_of(copy, lookaheads=reference_checkpoint.spec.streaming.lookaheads)
    evidence = gates.run_gate("contract", context)[0].evidence
    for part in ("unknown output frames", "output outputs is absent", "input audio_signal", "tokens in tokens.txt"):
        assert part in evidence


def test_verdict_files_and_reuse(validated, reference_checkpoint):
    copy, manifest, lines = validated
    assert required_passes(copy, FP32) == []
    assert f"{FP32}: tokens: pass" in map(str, lines)
    assert "| fp32 | pass |" in (copy / "results" / "report.md").read_text()
    lines, both = [], [FP32, "fp16"]
    assert not validate(reference_checkpoint, copy, manifest, both, baseline=False, threads=1, progress=lines.append)
    assert sum("unchanged" in str(line) for line in lines) == len(limits.limits_of(FP32).required)
    assert {r.status for r in read_results(results_path(copy, "fp16"))} == {FAIL}
    suites = {s.get("name"): s for s in ElementTree.parse(copy / "results" / "junit.xml").getroot()}
    assert suites[FP32].get("failures") == "0"
    assert int(suites["fp16"].get("failures")) == len(suites["fp16"].findall("testcase/failure")) > 0
    assert "manifest.json is missing" in required_passes(copy, "fp16")[0]
    assert "manifest.json is missing" in required_passes(copy, "int8-static")[0]


def test_variants_judged_beside_each_other(validated, reference_checkpoint, tmp_path, monkeypatch):
    """In processes, cost behind the rest: what had passed stands, what was missing is judged, whatever is new is seen."""
    limits_of, few = run.limits_of, ("contract", "cost", "tokens")  # of the second variant: all of its gates take long

    def fewer(variant):
        return limits_of(variant) if variant == FP32 else replace(limits_of(variant), required=few)

    monkeypatch.setattr(run, "limits_of", fewer)
    copy, manifest = damage.copy_build(validated[0], tmp_path / "build"), validated[1]
    path = results_path(copy, FP32)
    before = read_results(path)
    write_results(path, [r for r in before if r.gate not in ("contract", "cost", "wer")])
    shutil.copytree(copy / FP32, copy / "kv-fp32")
    settings = dict(variants=[FP32, "kv-fp32"], baseline=False, threads=1, jobs=2)
    assert not validate(reference_checkpoint, copy, manifest, **settings)
    key = [(r.gate, r.case, r.unit, r.status) for r in before]
    assert [(r.gate, r.case, r.unit, r.status) for r in read_results(path)] == key
    twin = read_results(results_path(copy, "kv-fp32"))  # the other contract's graphs under its name
    assert {r.gate for r in twin} == set(few)
    assert {r.gate for r in twin if not r.passed} == {"contract"}


def test_workers_end_with_whoever_started_them(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
            import time
            from concurrent.futures import ProcessPoolExecutor
            from multiprocessing import get_context
            from nemoport.validate.workers import end_with_parent

            if __name__ == "__main__":
                with ProcessPoolExecutor(1, get_context("spawn"), initializer=end_with_parent) as pool:
                    print(pool.submit(str, "at work").result(), flush=True)
                    pool.submit(time.sleep, 600).result()
            """)
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "at work\n"
    parent.kill()
    parent.communicate(timeout=60)  # a worker that lives on holds the pipe open: TimeoutExpired


def test_unusable_input_is_refused(copy, eval_corpus, reference_checkpoint, tmp_path):
    """Before NeMo or a gate is run."""
    first = eval_corpus.utterances[0].path
    for name, audio in (("corpus", first), ("calibration", shutil.copy(first, tmp_path / f"renamed{first.suffix}"))):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"audio_filepath": str(audio)}) + "\n")
    manifest, calibration = tmp_path / "corpus.jsonl", tmp_path / "calibration.jsonl"
    with pytest.raises(CorpusError, match=r"1 in both, such as .*renamed\.\w+ = "):
        validate(reference_checkpoint, copy, manifest, [FP32], calibration, baseline=False)
    with pytest.raises(UsageError, match="no gates for the variant 'int3'"):
        validate(reference_checkpoint, copy, manifest, ["int3"], baseline=False)
    with pytest.raises(ArtifactError, match="nothing to validate"):
        validate(reference_checkpoint, tmp_path, manifest, baseline=False)


def test_comparisons_are_what_no_gate_knows(tmp_path):
    for name in ("fp32", "int8-static", "int8-static-cold", "int8-static-minmax", "tiny"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    assert comparisons(tmp_path) == {"int8-static-cold": "int8-static", "int8-static-minmax": "int8-static"}
    assert built(tmp_path) == ["fp32", "int8-static"]


def test_a_gate_that_judges_nothing_or_is_not_there_does_not_pass(context_of, build, monkeypatch):
    from nemoport.validate.gates import boundary

    monkeypatch.setattr(boundary, "run", lambda context: [])
    assert [r.status for r in gates.run_gate("boundary", context_of(build))] == [FAIL]
    with pytest.raises(UsageError, match="no gate"):
        gates.run_gate("taste", context_of(build))
