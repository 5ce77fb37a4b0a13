"""One chunk size, as published packages have it, and less lookahead in the attention than the chunk is long."""

from dataclasses import replace

import pytest

from nemoport.cache_layout import KV, NEMO, variant_of
from nemoport.errors import UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.profile import profiled
from nemoport.recognizer import Recognizer
from nemoport.validate import gates
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, PASS
from nemoport.validate.limits import limits_of
from nemoport.validate.oracle import record_oracle

PROFILES = ("1120ms/0", "1120ms/6", "160ms/1")


@pytest.fixture(scope="module", params=PROFILES)
def made(request, reference_checkpoint, eval_corpus, tmp_path_factory):
    """(checkpoint as the profile has it, build of both contracts, four utterances, NeMo's runs)."""
    checkpoint = profiled(reference_checkpoint, request.param)
    folder = tmp_path_factory.mktemp("profile")
    for contract in (NEMO, KV):
        export_checkpoint(checkpoint, folder, contract)
    corpus = replace(eval_corpus, utterances=eval_corpus.utterances[-4:])
    return checkpoint, folder, corpus, record_oracle(checkpoint, corpus, folder)


@pytest.mark.parametrize("contract", [NEMO, KV])
@pytest.mark.parametrize("gate", ["contract", "numeric", "tokens"])
def test_equal_to_nemo(made, contract, gate):
    """NeMo's streaming with the same chunk, and its offline run with the same attention."""
    checkpoint, folder, corpus, oracle = made
    variant = variant_of(contract, "fp32")
    results = gates.run_gate(gate, Context(folder / variant, limits_of(variant), checkpoint, corpus, oracle, threads=1))
    assert [r for r in results if r.status != PASS] == []
    assert len(results) > 1 or gate == "contract"


@pytest.mark.parametrize("contract", [NEMO, KV])
def test_attention_over_the_whole_chunk_is_rejected(reference_checkpoint, eval_corpus, tmp_path, contract):
    """The graph that serves every lookahead, run in such chunks, is another function."""
    wanted = profiled(reference_checkpoint, "1120ms/0")
    corpus = replace(eval_corpus, utterances=eval_corpus.utterances[-2:])
    streaming = replace(wanted.spec.streaming, attention_lookahead=None)
    export_checkpoint(replace(wanted, spec=replace(wanted.spec, streaming=streaming)), tmp_path, contract)
    oracle, variant = record_oracle(wanted, corpus, tmp_path), variant_of(contract, "fp32")
    context = Context(tmp_path / variant, limits_of(variant), wanted, corpus, oracle, threads=1)
    assert all(r.status == FAIL for r in gates.run_gate("numeric", context))
    assert [r.status for r in gates.run_gate("contract", context)] == [FAIL]


def test_geometry_of_the_published_one(reference_checkpoint):
    """Card 002: 112 new mel frames and 9 of cache; one lookahead, with which the runtime cuts."""
    checkpoint = profiled(reference_checkpoint, "1120ms/0")
    streaming = checkpoint.spec.streaming
    assert streaming.lookaheads == (13,) and streaming.attention_lookahead == 0
    assert streaming.window_mel_frames(13, first=False) == 121
    assert profiled(reference_checkpoint, "160ms/1").spec.streaming.attention_lookahead is None
    assert profiled(reference_checkpoint, None) is reference_checkpoint


def test_opens_like_any_other(made):
    checkpoint, folder, corpus, _ = made
    recognizer = Recognizer.open(folder / "fp32", threads=1)
    assert recognizer.lookahead == checkpoint.spec.streaming.lookaheads[0]
    assert recognizer.transcribe_file(corpus.utterances[0].path).text


@pytest.mark.parametrize("profile", ["1120ms/3", "1130ms/0", "80ms/1", "1120ms", "400ms/0x", "0ms/0", "960ms/0"])
def test_what_cannot_be_is_refused(reference_checkpoint, profile):
    with pytest.raises(UsageError, match="profile cannot be used"):
        profiled(reference_checkpoint, profile)
