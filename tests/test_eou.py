"""The trained checkpoint that marks ends of utterances: what it says, its gates in every variant, and what they reject."""

import json
from dataclasses import replace

import damage
import numpy as np
import pytest

from nemoport.artifact import DECODER
from nemoport.events import EventSpec, events_in
from nemoport.recognizer import Recognizer
from nemoport.reference import eou
from nemoport.speech.corpus import read_corpus
from nemoport.validate import gates, limits
from nemoport.validate.context import Context
from nemoport.validate.gate_result import PASS
from nemoport.validate.oracle import record_oracle

EOU, EOB = 96, 97
PAUSE_S = 1.0


@pytest.fixture(scope="session")
def dialogue(tmp_path_factory, eou_checkpoint):
    """A corpus of three recordings of three evaluation utterances in a row, with pauses behind each."""
    import soundfile

    corpus = read_corpus(eou.AUDIO / "eval.jsonl", 16000)
    utterances = [u for u in corpus.utterances if u.seconds < 4.0][::3][:9]
    folder, silence = tmp_path_factory.mktemp("dialogue"), np.zeros(int(PAUSE_S * 16000), np.float32)
    rows = []
    for at in range(0, 9, 3):
        group = utterances[at : at + 3]
        soundfile.write(folder / f"{at}.wav", np.concatenate([part for u in group for part in (u.samples(), silence)]), 16000)
        rows.append({"audio_filepath": f"{at}.wav", "text": " ".join(u.text for u in group)})
    (folder / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_corpus(folder / "some.jsonl", 16000)


@pytest.fixture(scope="session")
def dialogue_oracle(eou_checkpoint, dialogue, shared_folder):
    return record_oracle(eou_checkpoint, dialogue, shared_folder)


@pytest.fixture
def context_of(eou_checkpoint, dialogue, dialogue_oracle):
    def make(build, variant="fp32"):
        return Context(build / variant, limits.limits_of(variant), eou_checkpoint, dialogue, dialogue_oracle, threads=1)

    return make


def failed(context, *names):
    return {name: [r.case for r in gates.run_gate(name, context) if r.status != PASS] for name in names}


def test_it_is_nemos_class_of_the_published_structure(eou_checkpoint):
    from nemoport.reference import model

    asr = model.restore(eou_checkpoint.path)
    assert type(asr).__name__ == "EncDecRNNTBPEModel" and asr.decoder.pred_rnn_layers == 1
    assert [*asr.cfg.encoder.att_context_size] == [70, 1] and asr.tokenizer.vocab[EOU:] == ["<EOU>", "<EOB>"]
    assert asr.tokenizer.text_to_ids("yes<EOU>")[-1] == EOU


def test_utterances_in_a_row_are_transcribed_to_the_last_and_end_where_they_do(eou_build, dialogue):
    """Without the reset hardly a word comes behind the first event."""
    with_reset, without = (Recognizer.open(eou_build / "fp32", threads=1, reset=reset) for reset in (True, False))
    spoken = kept = transcribed = ends = 0
    for utterance in dialogue.utterances:
        (found,), (silent,) = (one.transcribe(utterance.samples()) for one in (with_reset, without))
        spoken += len(utterance.text.split())
        transcribed, kept = transcribed + len(found.words), kept + len(silent.words)
        ends += sum(event.kind == "end_of_utterance" for event in found.events)
        assert "<" not in found.text and len(found.segments) >= 2
    assert ends in range(8, 12) and abs(transcribed - spoken) <= 0.2 * spoken and kept < 0.7 * spoken


@pytest.mark.parametrize("variant", ["fp32", "kv-fp32"])
def test_every_gate_of_words_and_tokens_passes(context_of, eou_build, variant):
    names = ("contract", "numeric", "tokens", "wer", "boundary", "words")
    assert failed(context_of(eou_build, variant), *names) == {name: [] for name in names}


def test_a_build_without_the_reset_is_rejected(context_of, eou_build, tmp_path):
    copy = damage.copy_build(eou_build, tmp_path / "build")
    config = json.loads((copy / "config.json").read_text())
    config["spec"]["events"]["resets"] = False
    (copy / "config.json").write_text(json.dumps(config))
    found = failed(context_of(copy), "contract", "tokens", "wer", "words")
    assert found["contract"] and found["tokens"] and found["wer"] and "events that NeMo has" in found["words"]


def test_a_build_that_knows_no_events_is_rejected(context_of, eou_build, tmp_path):
    copy = damage.copy_build(eou_build, tmp_path / "build")
    config = json.loads((copy / "config.json").read_text())
    del config["spec"]["events"]
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "shared" / "spelling.json").unlink()
    assert all(failed(context_of(copy), "contract", "tokens", "wer").values())


def test_a_decoder_that_drops_the_event_is_rejected(context_of, eou_build, tmp_path):
    """Word error rates alone would not show it: here the words may even be the same."""
    copy = damage.copy_build(eou_build, tmp_path / "build")

    def silence(bias):
        bias = bias.copy()
        bias[[EOU, EOB]] -= 30.0
        return bias

    damage.edit_weight(copy, DECODER, lambda name: name == "head.bias", silence)
    found = failed(context_of(copy), "tokens", "words")
    assert found["tokens"] and "events that NeMo has" in found["words"]


@pytest.fixture(scope="session")
def recording(dialogue):
    return dialogue.utterances[0].path


@pytest.mark.parametrize("variant", ["fp32", "kv-fp32"])
def test_the_example_on_the_card_has_the_tokens_and_the_text(eou_build, recording, variant, tmp_path):
    from nemoport.package.examples import native as example
    from nemoport.package.layouts import native

    native.lay_out(eou_build, [variant], tmp_path)
    (expected,) = Recognizer.open(eou_build / variant, threads=1).transcribe(recording)
    assert example.transcribe(tmp_path, variant, recording) == ([*expected.tokens], expected.text) and expected.events


def test_the_example_for_sherpa_onnx_hears_every_utterance(eou_build, recording, tmp_path):
    """sherpa-onnx has NeMo's tokens but for the first window and the tail, and no other token here."""
    pytest.importorskip("sherpa_onnx")
    from nemoport.package.examples import sherpa_onnx_streaming as example
    from nemoport.package.layouts import sherpa_onnx

    sherpa_onnx.lay_out(eou_build, ["fp32"], tmp_path)
    (expected,) = Recognizer.open(eou_build / "fp32", threads=1).transcribe(recording)
    found = example.transcribe(tmp_path, "", recording)
    assert "<" not in found and found.split()[1:] == expected.text.split()[-len(found.split()) + 1 :]
    assert len(found.split()) >= len(expected.text.split())


def test_pieces_of_either_type_are_events(eou_checkpoint, reference_checkpoint):
    """NeMo's script makes control symbols, which SentencePiece never spells, or user-defined ones, which it does."""
    from nemoport.export.sentencepiece_model import read_model
    from nemoport.reference import model
    from nemoport.tokens import Pieces, detokenize

    tokens, texts = [7, 68, 90, EOU, 89, 7, EOB, 24], []
    for control in (False, True):
        content = model.with_pieces(reference_checkpoint.tokenizer, eou.EVENTS, control=control)
        read = read_model(content)
        pieces = [piece for piece, _ in read.pieces]
        assert read.rule().silent == ((EOU, EOB) if control else ()) and events_in(pieces) == EventSpec(EOU, EOB)
        texts.append(detokenize(Pieces(pieces, replace(read.rule(), events=(EOU, EOB))), tokens))
    assert texts[0] == texts[1] == detokenize(eou_checkpoint.pieces, tokens) and "<" not in texts[0]
