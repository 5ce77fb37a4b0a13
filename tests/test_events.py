"""Ends of utterances that a model marks: events of the stream, never words, and the decoder that begins anew behind them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nemoport.artifact import Artifact
from nemoport.beam import BeamSearch
from nemoport.cli.live import _Lines
from nemoport.errors import ArtifactError, UsageError
from nemoport.events import Event, EventSpec, events_in
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.long_audio import Timed
from nemoport.recognizer import Recognizer
from nemoport.reference import model, random_checkpoint
from nemoport.search import without_reset
from nemoport.spec import ModelSpec
from nemoport.tokens import Pieces, Spelling, SpellingRule, detokenize
from nemoport.utterances import EndRule
from nemoport.validate import nemo, nemo_runs

EOU_CLASS = "nemo.collections.asr.models.asr_eou_models.EncDecRNNTBPEEOUModel"
PIECES = Pieces(["\u2581a", "b", "\u2581", "<EOU>", "<EOB>", "<0xC3>", "<0xA9>"], SpellingRule(events=(3, 4)))


@pytest.fixture(scope="module")
def path(tmp_path_factory, random_checkpoint) -> Path:
    """A tiny model of that structure, whose events are about as frequent as other tokens, saved by NeMo's class."""
    import torch

    asr = model.restore(random_checkpoint("tiny-eou"))
    with torch.no_grad():
        asr.joint.joint_net[-1].bias[62:64] += torch.tensor([0.6, 0.4])
    path = tmp_path_factory.mktemp("events") / "model.nemo"
    with nemo.quiet():
        asr.save_to(str(path))
    return path


@pytest.fixture(scope="module")
def checkpoint(path):
    return read_checkpoint(str(path))


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("events") / "build").folder


SPEECH = [random_checkpoint.pseudo_speech(seed, 5.0) for seed in (3, 4, 5)]


@pytest.mark.parametrize("reset", [True, False])
def test_tokens_and_text_are_nemos(path, checkpoint, folder, reset):
    from nemo.collections.asr.models import ASRModel

    with nemo.quiet():
        theirs = ASRModel.restore_from(str(path), map_location="cpu").eval()
    theirs.preprocessor.featurizer.dither = 0.0
    events = replace(checkpoint.spec.events, resets=reset)
    recognizer = Recognizer.open(folder, threads=1, flush="nemo", reset=reset)
    found = sorted(recognizer.transcribe([(str(i), one) for i, one in enumerate(SPEECH)], streams=3), key=lambda one: one.id)
    for oracle in (theirs, nemo.restore(checkpoint)):
        with nemo.exact(oracle), nemo.quiet():
            runs = nemo_runs.stream(oracle, SPEECH, 1, events=events)
        assert [(run.tokens, run.text) for run in runs] == [(one.tokens, one.text) for one in found]
        seconds = [tuple(frame * 0.08 for frame in run.token_frames) for run in runs]
        np.testing.assert_allclose(np.concatenate(seconds), np.concatenate([one.token_seconds for one in found]))
    assert sum(len(one.events) for one in found) > 2 and all(len(one.tokens) > 5 and "<" not in one.text for one in found)


def test_a_reset_changes_what_follows_and_only_that(folder):
    with_reset, without = (Recognizer.open(folder, threads=1, reset=reset) for reset in (True, False))
    for audio in SPEECH:
        reset, plain = (
            [*zip(one.tokens, one.token_seconds, strict=True)] for r in (with_reset, without) for one in r.transcribe(audio)
        )
        ends = [second for token, second in plain if token in (62, 63)]
        same = [pair for pair in plain if pair[1] <= ends[0]]
        assert reset != plain and reset[: len(same)] == same[: len(reset)]
        seconds = [second for _, second in reset]
        assert all(seconds[i + 1] > seconds[i] for i, (token, _) in enumerate(reset[:-1]) if token in (62, 63))


@pytest.mark.parametrize("width", [1, 4])
def test_packets_of_any_size_give_the_same_events(folder, width):
    recognizer = Recognizer.open(folder, threads=1, beam=width)
    (whole,) = recognizer.transcribe(SPEECH[0])
    stream = recognizer.stream()
    for at in range(0, len(SPEECH[0]), 777):
        stream.feed(SPEECH[0][at : at + 777])
    stream.finish()
    assert stream.events == whole.events and len(whole.events) >= 2
    assert {event.kind for event in whole.events} <= {"end_of_utterance", "end_of_backchannel"}
    times = {(token, second): confidence for token, second, confidence in
             zip(whole.tokens, whole.token_seconds, whole.token_confidences, strict=True)}  # fmt: skip
    ids = {"end_of_utterance": 62, "end_of_backchannel": 63}
    assert all(times[ids[event.kind], event.time] == event.confidence for event in whole.events)


def test_a_wide_search_of_one_path_resets_as_greedy_does(folder):
    """Every path of a search has a predictor of its own; the best of a narrow one is greedy's where nothing is near."""
    greedy, beam = (Recognizer.open(folder, threads=1, beam=width).session for width in (1, 2))
    assert greedy.spec.resetting == beam.spec.resetting == {62, 63}
    search = BeamSearch(2, steps=10, gamma=0.0, beta=0, prefixes=False)  # only the best way on: greedy's
    made = Recognizer.open(folder, threads=1)
    made._search = search
    for audio in SPEECH:
        (wanted,), (found,) = Recognizer.open(folder, threads=1).transcribe(audio), made.transcribe(audio)
        assert (found.tokens, found.token_seconds) == (wanted.tokens, wanted.token_seconds)


def test_segments_and_utterances_end_at_events(folder):
    recognizer = Recognizer.open(folder, threads=1)
    (whole,) = recognizer.transcribe(SPEECH[0])
    live = recognizer.utterances(EndRule(float("inf")))
    ended = live.feed(SPEECH[0]) + live.finish()
    assert [one.words for one in ended] == [one.words for one in whole.segments] and len(ended) >= 2
    assert [one.event for one in ended[:-1]] == [one for one in whole.events if one in {two.event for two in ended[:-1]}]
    assert all(one.event is None or one.event.time >= one.words[-1].start for one in ended)
    assert " ".join(one.text for one in ended) == whole.text == recognizer.text(whole.tokens)


def timed(*tokens):
    n = len(tokens)
    return Timed(tokens, tuple(i * 0.08 for i in range(n)), (0.0,) * n, tuple(0.1 * i for i in range(n)))


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([0, 1, 3, 0], "ab a"),
        ([0, 3, 1, 4, 4, 1], "a b b"),  # no word goes on behind an event
        ([3, 0, 3], "a"),
        ([3, 4], ""),
        ([0, 5, 3, 6, 0], "a\ufffd \ufffd a"),  # nor does a character
        ([0, 3, 5, 6], "a \u00e9"),
        ([0, 3, 2, 0], "a a"),  # each utterance is spelled as SentencePiece spells it alone
    ],
)
def test_events_are_no_text_and_divide_it(tokens, text):
    assert detokenize(PIECES, tokens) == text
    spelling = Spelling(PIECES)
    assert "".join([*(spelling.feed([token]) for token in tokens), spelling.finish()]) == text


def test_events_of_tokens():
    events = EventSpec(3, 4)
    assert timed(0, 3, 1, 4).events(events) == (
        Event("end_of_utterance", 0.08, 0.1), Event("end_of_backchannel", 0.24, 0.30000000000000004),
    )  # fmt: skip
    assert timed(0, 3).events(None) == () and timed(4, 3).events(EventSpec(3))[0].kind == "end_of_utterance"


def test_a_line_for_each_utterance_that_ends(folder):
    recognizer = Recognizer.open(folder, threads=1)
    recognizer.session.spec = replace(recognizer.session.spec, events=EventSpec(3, 4))
    for tokens, text in (
        ([0, 1, 3, 0, 0, 4, 3], "ab\na a\n"),
        ([3, 0], "a\n"),
        ([3, 4], "\n"),
        ([0, 3, 1, 1], "a\nbb\n"),
        ([], "\n"),
    ):
        lines = _Lines(recognizer, Spelling(PIECES))
        assert "".join([*(lines.feed([token]) for token in tokens), lines.finish()]) == text


@pytest.mark.parametrize("kind", [3, 4], ids=["control", "user-defined"])
def test_events_are_read_from_the_vocabulary(kind):
    assert events_in(["a", "<EOB>", "<EOU>"]) == EventSpec(2, 1)
    assert events_in(["<EOU>", "b"]) == EventSpec(0, None) and events_in(["a", "EOU", "<eou>", "<EOUs>"]) is None


def test_a_vocabulary_without_events_has_no_part_of_them(reference_checkpoint):
    assert reference_checkpoint.spec.events is None and "events" not in reference_checkpoint.spec.to_dict()
    assert reference_checkpoint.spelling.events == () and reference_checkpoint.spec.resetting == frozenset()
    with pytest.raises(UsageError, match="no reset to leave out"):
        without_reset(reference_checkpoint.spec)


def test_config_and_spelling_state_the_events(checkpoint, folder):
    config = json.loads((folder.parent / "config.json").read_text())
    assert config["spec"]["events"] == {"end_of_utterance": 62, "end_of_backchannel": 63, "resets": True}
    assert config["events"]["tokens"] == {"end_of_utterance": 62, "end_of_backchannel": 63}
    assert json.loads((folder.parent / "shared" / "spelling.json").read_text())["events"] == [62, 63]
    assert checkpoint.spec == ModelSpec.from_dict(checkpoint.spec.to_dict()) == Artifact.open(folder).spec


@pytest.mark.parametrize(
    "events",
    [{}, {"end_of_utterance": 64}, {"end_of_utterance": 3, "end_of_backchannel": 3}, {"end_of_utterance": -1},
     {"end_of_utterance": 3, "resets": "no"}, {"end_of_utterance": "3"}],
)  # fmt: skip
def test_events_that_are_no_tokens_are_refused(checkpoint, events):
    with pytest.raises(ArtifactError):
        ModelSpec.from_dict({**checkpoint.spec.to_dict(), "events": events})


def test_nemos_other_class_of_such_models_is_the_same_model(path, checkpoint, tmp_path):
    """EncDecRNNTBPEEOUModel changes training and scoring alone."""
    import torch
    from nemo.collections.asr.models.asr_eou_models import EncDecRNNTBPEEOUModel
    from omegaconf import OmegaConf

    asr = model.restore(path)
    with nemo.quiet():
        config = OmegaConf.create(OmegaConf.to_container(asr.cfg))  # without its class, which NeMo would write again
        config.tokenizer = {"dir": str(tmp_path), "type": "bpe"}
        del config.target
        (tmp_path / "tokenizer.model").write_bytes(checkpoint.tokenizer)
        (tmp_path / "vocab.txt").write_text("\n".join(checkpoint.tokens))
        theirs = EncDecRNNTBPEEOUModel(config).eval()
        theirs.load_state_dict(asr.state_dict())
        theirs.save_to(str(tmp_path / "other.nemo"))
    other = read_checkpoint(str(tmp_path / "other.nemo"))
    assert other.config["target"] == EOU_CLASS and other.spec == checkpoint.spec and other.tokens == checkpoint.tokens
    ours, found = nemo.restore(other), []
    for one in (theirs, ours):
        one.preprocessor.featurizer.dither = 0.0
        with nemo.exact(one), nemo.quiet():
            signal = dict(input_signal=torch.from_numpy(SPEECH[0])[None], input_signal_length=torch.tensor([len(SPEECH[0])]))
            found += one.decoding.rnnt_decoder_predictions_tensor(*one.forward(**signal), return_hypotheses=True)
    assert found[0].y_sequence.tolist() == found[1].y_sequence.tolist() and len(found[0].y_sequence) > 10
