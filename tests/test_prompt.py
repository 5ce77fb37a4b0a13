"""Models that are told a language: the prompt against NeMo's own, by both contracts, and what must be refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import hf_oracle
import numpy as np
import onnx
import pytest

from nemoport.artifact import ENCODER, Artifact
from nemoport.cache_layout import KV, NEMO, variant_of
from nemoport.caches import PROMPT
from nemoport.calibration.stream import CalibrationStreams, StreamParameters
from nemoport.errors import CheckpointError, CorpusError, UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.unsupported import unsupported
from nemoport.prompt import PromptSpec
from nemoport.quantize.graph import constant_matmuls, layer_matmuls
from nemoport.recognizer import Recognizer
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.speech.corpus import prompts, read_corpus
from nemoport.stream import Stream
from nemoport.tokens import split_tags, tag_tokens
from nemoport.validate import gates, nemo, nemo_runs
from nemoport.validate.context import Context
from nemoport.validate.gate_result import FAIL, PASS
from nemoport.validate.limits import limits_of
from nemoport.validate.oracle import record_oracle

AUDIO = Path(__file__).parent.parent / "reference" / "audio"
TOLD = ("en-US", "ja-JP", "auto", "hi-IN", "de-DE", "auto")  # slots 0, 10, 101 and others
CONTRACTS = pytest.mark.parametrize("contract", [NEMO, KV])


def manifest(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def checkpoint(random_checkpoint):
    """Random weights whose tokens answer to the audio and to the prompt."""
    return read_checkpoint(str(random_checkpoint("tiny-multilingual")))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six utterances, each with a language of its own, two of which the model is to find out."""
    rows = [json.loads(line) for line in (AUDIO / "eval.jsonl").read_text().splitlines()[:36:6]]
    rows = [
        {"audio_filepath": str(AUDIO / row["audio_filepath"]), "text": row["text"], "lang": "es-ES", "target_lang": told}
        for row, told in zip(rows, TOLD, strict=True)
    ]
    return read_corpus(manifest(tmp_path_factory.mktemp("corpus") / "eval.jsonl", rows), 16000)


@pytest.fixture(scope="module")
def build(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    for contract in (NEMO, KV):
        export_checkpoint(checkpoint, folder, contract)
    return folder


@pytest.fixture(scope="module")
def oracle(checkpoint, corpus, tmp_path_factory):
    return record_oracle(checkpoint, corpus, tmp_path_factory.mktemp("oracle"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return nemo.restore(checkpoint)


def judged(gate, folder, checkpoint, corpus, oracle, contract):
    variant = variant_of(contract, "fp32")
    return gates.run_gate(gate, Context(folder / variant, limits_of(variant), checkpoint, corpus, oracle, threads=1))


def frames_of(session, filterbank, samples, slot, lookahead=3):
    stream = Stream(session, filterbank, lookahead, prompt=slot)
    stream.push(samples)
    stream.close()
    state, out = stream.encoder_state, []
    for chunk in stream.chunks:
        state = session.stack([state])
        made, lengths, state = session.encode(chunk.mel[None], np.array([chunk.length]), state)
        (state,) = session.unstack(state)
        out.append(made[0, : lengths[0]])
    return np.concatenate(out)


@CONTRACTS
@pytest.mark.parametrize("gate", ["contract", "numeric", "tokens", "batch"])
def test_equal_to_nemo(build, checkpoint, corpus, oracle, contract, gate):
    """Four languages and `auto`, at every lookahead, by both flush rules, one, three and eight streams of several languages."""
    two = replace(corpus, utterances=(*corpus.utterances, *corpus.utterances)) if gate == "batch" else corpus
    results = judged(gate, build, checkpoint, two, oracle, contract)
    assert [r for r in results if r.status != PASS] == []


def test_the_comparison_sees_a_wrong_language(build, checkpoint, corpus, oracle):
    """The same audio with the languages exchanged is not what NeMo transcribed."""
    exchanged = [replace(u, prompt_language="fr-FR" if u.prompt_language == "auto" else "auto") for u in corpus.utterances]
    results = judged("tokens", build, checkpoint, replace(corpus, utterances=tuple(exchanged)), oracle, NEMO)
    assert any(r.status == FAIL for r in results)
    results = judged("numeric", build, checkpoint, replace(corpus, utterances=tuple(exchanged)), oracle, NEMO)
    assert all(r.status == FAIL for r in results)


def test_nemo_without_its_prompt_is_another_model(model, checkpoint, corpus, oracle):
    """The trap that a recorded oracle must not fall into: NeMo's streaming leaves a prompt out that it was not told."""
    samples = corpus.utterances[0].samples()
    with nemo.exact(model), nemo.quiet():
        (told,) = nemo_runs.stream(model, [samples], 3, ["en-US"])
        del model._inference_prompt_index
        (untold,) = nemo_runs.stream(model, [samples], 3)
    assert np.abs(told.frames - untold.frames).max() > 0.1
    assert oracle.runs["streaming", 3][0].tokens == told.tokens


@CONTRACTS
def test_damaged_slots_are_rejected(build, checkpoint, corpus, oracle, contract, tmp_path):
    """A table whose rows stand one place off, as a dictionary of another release would have it."""
    from nemoport.graph_file import save_model

    damaged = tmp_path / "build"
    shutil.copytree(build, damaged)
    path = damaged / variant_of(contract, "fp32") / ENCODER
    graph = onnx.load(path)
    (slots,) = (i for i in graph.graph.initializer if i.name == "prompt_kernel.slots")
    values = np.roll(onnx.numpy_helper.to_array(slots), 1, 0)
    slots.CopyFrom(onnx.numpy_helper.from_array(values, slots.name))
    save_model(graph, path, {p.key: p.value for p in graph.metadata_props})
    assert all(r.status == FAIL for r in judged("numeric", damaged, checkpoint, corpus, oracle, contract))


@CONTRACTS
@pytest.mark.parametrize("damage", ["languages", "traced in"])
def test_contract_gate(build, checkpoint, corpus, oracle, contract, damage, tmp_path):
    damaged = tmp_path / "build"
    shutil.copytree(build, damaged)
    if damage == "languages":
        languages = json.loads((path := damaged / "shared" / "languages.json").read_text())
        path.write_text(json.dumps(languages | {"de-DE": 1}))
        expected = "languages.json"
    else:
        path = damaged / variant_of(contract, "fp32") / ENCODER
        graph = onnx.load(path, load_external_data=False)
        (slot,) = (i for i in graph.graph.input if i.name == PROMPT)
        graph.graph.input.remove(slot)
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), PROMPT))
        path.write_bytes(graph.SerializeToString())
        expected = ENCODER
    (result,) = judged("contract", damaged, checkpoint, corpus, oracle, contract)
    assert result.status == FAIL and expected in result.evidence


@pytest.mark.parametrize("lookahead", [3, 0, 6, 13])
def test_second_oracle_agrees(checkpoint, build, corpus, lookahead):
    """HF's Nemotron3_5AsrForRNNT with the same weights: frames behind the prompt, and tokens."""
    import torch

    spec, second = checkpoint.spec, hf_oracle.from_checkpoint(checkpoint)
    artifact = Artifact.open(build / "fp32")
    session = OnnxSession.open(artifact, threads=1)
    for utterance, slot in list(zip(corpus.utterances, prompts(corpus, spec), strict=True))[1:3]:
        samples = utterance.samples()
        features, mask = hf_oracle.mel(samples, spec.frontend.n_mels)
        with torch.inference_mode():
            theirs = hf_oracle.prompted_frames(second, features, mask, lookahead, slot)
            tokens = hf_oracle.offline_tokens(second, features, mask, lookahead, slot)
        stream = Stream(session, artifact.filterbank(), lookahead, prompt=slot)
        stream.push(samples)
        stream.close()
        ours = frames_of(session, artifact.filterbank(), samples, slot, lookahead)
        if lookahead:  # at 0 streaming differs from an offline run by itself, NeMo's too
            np.testing.assert_allclose(ours, theirs[: len(ours)], atol=1e-4)
            stream.finish()
            assert tuple(stream.tokens) == tokens


@CONTRACTS
def test_language_changes_between_chunks(build, model, corpus, contract):
    """A stream that goes on in another language, against NeMo told the same in the middle."""
    artifact = Artifact.open(build / variant_of(contract, "fp32"))
    spec, session = artifact.spec, OnnxSession.open(artifact, threads=1)
    samples = np.concatenate([u.samples() for u in corpus.utterances[:2]])
    stream = Stream(session, artifact.filterbank(), 6, flush="nemo", prompt=spec.prompt.slot("de-DE"))
    stream.push(samples)
    stream.close()
    middle, chunks = len(stream.chunks) // 2, list(stream.chunks)
    transcribed = []
    for at, chunk in enumerate(chunks):
        if at == middle:
            stream.set_language(spec.prompt.slot("ja-JP"))
        stream.chunks = [chunk]
        before = len(stream.tokens)
        stream._run()
        transcribed.append(stream.tokens[before:])
    told = iter(["de-DE"] * middle + ["ja-JP"] * (len(chunks) - middle))
    step = nemo_runs._step

    def telling(model, *rest):
        model.set_inference_prompt(next(told))
        return step(model, *rest)

    with nemo.exact(model), nemo.quiet(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(nemo_runs, "_step", telling)
        (run,) = nemo_runs.stream(model, [samples], 6)
        patch.undo()
        (one,) = nemo_runs.stream(model, [samples], 6, ["de-DE"])
    assert [t for tokens in transcribed for t in tokens] == list(run.tokens)
    assert run.tokens != one.tokens


def test_recognizer(build, corpus):
    utterance = corpus.utterances[0]
    recognizer = Recognizer.open(build / "fp32", threads=1, language="ja_jp")
    assert recognizer.lookahead == 3  # the checkpoint's own default
    (one,) = recognizer.transcribe([("x", utterance.samples())])
    assert "<" not in one.text.replace("<unk>", "") and isinstance(one.languages, tuple)
    stream = recognizer.stream("hi-IN")
    stream.feed(utterance.samples())
    stream.finish()
    assert tuple(stream.tokens) != one.tokens
    tags = tag_tokens(recognizer._pieces)
    assert "de-DE" in tags and recognizer.languages([tags["de-DE"], tags["hi-IN"]]) == ("de-DE", "hi-IN")
    assert recognizer.text([tags["de-DE"]]) == ""


def test_what_is_not_told_is_refused(build):
    with pytest.raises(UsageError, match="needs a language"):
        Recognizer.open(build / "fp32")
    with pytest.raises(UsageError, match="de-DE"):
        Recognizer.open(build / "fp32", language="de-DD")
    artifact = Artifact.open(build / "kv-fp32")
    session = OnnxSession.open(artifact, threads=1)
    for slots in ([], [0, 1], [128], [-1]):
        with pytest.raises(UsageError, match="needs the language"):
            session.initial_state(1, slots)


def test_others_are_told_nothing(reference_checkpoint):
    with pytest.raises(UsageError, match="no language prompt"):
        reference_checkpoint.spec.check_prompts(1, [0])


@pytest.mark.parametrize("language, slot", [("de-DE", 9), ("de_de", 9), ("DE-de", 9), ("auto", 101), ("ja-JP", 10), ("en-US", 0)])
def test_names_of_languages(checkpoint, language, slot):
    assert checkpoint.spec.prompt.slot(language) == slot


def test_unknown_language_names_the_nearest():
    spec = PromptSpec(128, {"de-DE": 9, "da-DK": 25, "ja-JP": 10})
    with pytest.raises(UsageError) as caught:
        spec.slot("de-AT")
    assert "de-DE" in str(caught.value) and "auto" not in str(caught.value)


def test_manifest_without_languages_is_refused(checkpoint, corpus, tmp_path):
    rows = [{"audio_filepath": str(corpus.utterances[0].path)}, {"audio_filepath": str(corpus.utterances[1].path), "lang": "xx"}]
    with pytest.raises(CorpusError) as caught:
        prompts(read_corpus(manifest(tmp_path / "x.jsonl", rows), 16000), checkpoint.spec)
    assert "none" in caught.value.found and "xx" in caught.value.found


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"initialize_prompt_feature": False}, "initialize_prompt_feature is not true"),
        ({"prompt_dictionary": None}, "prompt_dictionary is absent"),
        ({"prompt_dictionary": {"en-US": 0, "xx-XX": 128}}, "leaves the 128 slots of num_prompts: xx-XX 128"),
        ({"prompt_dictionary": {"en-US": True}}, "leaves the 128 slots"),
    ],
)
def test_bad_dictionaries_are_refused(checkpoint, change, reason):
    config = {**checkpoint.config, "model_defaults": {**checkpoint.config["model_defaults"], **change}}
    (problem,) = unsupported(config)
    assert reason in problem


def test_weights_of_another_dictionary_are_refused(checkpoint, tmp_path):
    spec = replace(checkpoint.spec, prompt=PromptSpec(64, {"en-US": 0}))
    with pytest.raises(CheckpointError, match="do not fit the config"):
        export_checkpoint(replace(checkpoint, spec=spec), tmp_path / "build")
    assert not (tmp_path / "build" / "fp32").exists()


def test_prompt_stays_in_floats(build):
    """Behind the last layer nothing evens an error out; see quantize/graph.py."""
    for variant in ("fp32", "kv-fp32"):
        graph = onnx.load(build / variant / ENCODER, load_external_data=False)
        every, quantized = ({n.name for n in found(graph)} for found in (constant_matmuls, layer_matmuls))
        assert {n.split("/")[1] for n in every - quantized} == {"pre_encode", "prompt_kernel"}


def test_calibration_is_balanced(checkpoint, build, tmp_path):
    """As many streams in each language, told and to be found out in turn; the language with less audio is transcribed again."""
    rows = [json.loads(line) for line in (AUDIO / "calibration.jsonl").read_text().splitlines()]
    rows = [{**r, "audio_filepath": str(AUDIO / r["audio_filepath"])} for r in rows]
    rows = [{**r, "lang": "en-US" if i < 30 else "ja-JP" if i < 40 else "de-DE"} for i, r in enumerate(rows)]
    corpus = read_corpus(manifest(tmp_path / "c.jsonl", rows), 16000)
    streams = CalibrationStreams.of(corpus, Artifact.open(build / "fp32"), StreamParameters())
    spoken = [p for p in streams.plans if {s.kind for s in p.segments} == {"speech"}]
    languages = [{corpus.utterances[s.utterance].language for s in plan.segments} for plan in spoken]
    assert all(len(one) == 1 for one in languages)
    counts = {name: sum(name in one for one in languages) for name in ("en-US", "ja-JP", "de-DE")}
    assert len(set(counts.values())) == 1 and counts["ja-JP"] > 1
    told = {(next(iter(one)), plan.prompt == 101) for one, plan in zip(languages, spoken, strict=True)}
    assert told == {(name, auto) for name in counts for auto in (False, True)}
    assert {plan.lookahead for plan in streams.plans} == set(checkpoint.spec.lookaheads)


def test_tags():
    assert split_tags("Guten Tag. <de-DE> Hello <en-US>") == ("Guten Tag. Hello", ("de-DE", "en-US"))
    assert split_tags("a < b <unk>") == ("a < b <unk>", ())
    assert tag_tokens(["<unk>", "\u2581<de-DE>", "a", "<hi-IN>"]) == {"de-DE": 1, "hi-IN": 3}


@pytest.fixture(scope="module")
def trained():
    return read_checkpoint(str(AUDIO.parent / "checkpoints" / "streaming-multilingual.nemo"))


@pytest.fixture(scope="module")
def spoken(trained):
    """Three utterances in each of the six languages; of each language the model is to find out one."""
    corpus = read_corpus(AUDIO / "eval-multi.jsonl", trained.spec.frontend.sample_rate_hz)
    languages = dict.fromkeys(u.language for u in corpus.utterances)
    chosen = [u for language in languages for u in [v for v in corpus.utterances if v.language == language][:3]]
    assert len(languages) >= 6 and {u.prompt_language for u in chosen} == {*languages, "auto"}
    return replace(corpus, utterances=tuple(chosen))


@pytest.fixture(scope="module")
def trained_build(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    for contract in (NEMO, KV):
        export_checkpoint(trained, folder, contract)
    return folder


@pytest.fixture(scope="module")
def trained_oracle(trained, spoken, tmp_path_factory):
    return record_oracle(trained, spoken, tmp_path_factory.mktemp("oracle"))


@CONTRACTS
def test_trained_checkpoint_is_equal_to_nemo(trained_build, trained, spoken, trained_oracle, contract):
    variant = variant_of(contract, "fp32")
    context = Context(trained_build / variant, limits_of(variant), trained, spoken, trained_oracle, threads=1)
    results = [r for gate in ("numeric", "tokens", "wer") for r in gates.run_gate(gate, context)]
    assert [r for r in results if r.status != PASS] == []
    units = {r.case: r.unit for r in results if r.case.startswith("language ")}
    assert units["language ja-JP: rate"] == "% CER" and units["language hi-IN: rate"] == "% WER"
    assert len([case for case in units if case.endswith(": difference")]) == 6


def test_loss_of_one_language_is_seen(trained_build, trained, spoken, trained_oracle, tmp_path):
    """German is told by the slot of Japanese: the gate names it, and finds nothing wrong with the others."""
    from nemoport.graph_file import save_model

    told = tuple(replace(u, prompt_language=u.language) for u in spoken.utterances)
    corpus = replace(spoken, utterances=told)
    damaged = tmp_path / "build"
    shutil.copytree(trained_build, damaged)
    graph = onnx.load(path := damaged / "fp32" / ENCODER)
    (slots,) = (i for i in graph.graph.initializer if i.name == "prompt_kernel.slots")
    values = onnx.numpy_helper.to_array(slots).copy()
    values[trained.spec.prompt.slot("de-DE")] = values[trained.spec.prompt.slot("ja-JP")]
    slots.CopyFrom(onnx.numpy_helper.from_array(values, slots.name))
    save_model(graph, path, {p.key: p.value for p in graph.metadata_props})
    oracle = record_oracle(trained, corpus, tmp_path / "oracle")
    results = judged("wer", damaged, trained, corpus, oracle, NEMO)
    by_int8 = Context(damaged / "fp32", replace(limits_of("int8-dynamic"), variant="fp32"), trained, corpus, oracle, threads=1)
    for found in (results, gates.run_gate("wer", by_int8)):
        failed = {r.case for r in found if r.status == FAIL and r.case.startswith("language ")}
        assert failed == {"language de-DE: difference"}
