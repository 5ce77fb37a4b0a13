"""Beam search of a trained CTC model with a language model: from the command line, live and on files."""

import json

import jiwer
import pytest
from conftest import ROOT

from nemoport.cli import main
from nemoport.files import sha256_file
from nemoport.language_model import ArpaFile
from nemoport.recognizer import Recognizer
from nemoport.reference import ngram
from nemoport.speech.corpus import read_corpus

pytest.importorskip("kenlm")
CLIPS = 8


@pytest.fixture(scope="module")
def variant(ctc_checkpoint, tmp_path_factory):
    from nemoport.export.build import export_checkpoint
    from nemoport.export.checkpoint import read_checkpoint

    return export_checkpoint(read_checkpoint(str(ctc_checkpoint("ctc-streaming"))), tmp_path_factory.mktemp("ctc"), "kv").folder


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    ngram.write(path, [line.split() for line in ngram.training_sentences(3000, "0")], 3)
    return path


@pytest.fixture(scope="module")
def utterances():
    return read_corpus(ROOT / "reference" / "audio" / "eval.jsonl", 16000).utterances[:CLIPS]


def texts(recognizer, utterances):
    return [one.text for one in recognizer.transcribe([(u.id, u.samples()) for u in utterances])]


def test_a_language_model_of_the_domain_halves_the_errors_and_live_is_as_a_file(variant, arpa, utterances):
    wanted = [u.text for u in utterances]
    greedy = texts(Recognizer.open(variant, threads=1), utterances)
    recognizer = Recognizer.open(variant, threads=1, beam=8, language_model=ArpaFile(arpa))
    found = texts(recognizer, utterances)
    assert jiwer.wer(wanted, found) < 0.5 * jiwer.wer(wanted, greedy)
    for utterance, text in zip(utterances[:3], found, strict=False):
        stream, samples = recognizer.stream(), utterance.samples()
        for start in range(0, len(samples), 3200):
            stream.feed(samples[start : start + 3200])
        stream.finish()
        assert recognizer.text(stream.tokens) == text


def test_the_command_line_gives_the_same(variant, arpa, utterances, capsys):
    recognizer = Recognizer.open(variant, threads=1, beam=4, language_model=ArpaFile(arpa, 0.3, 1.0))
    settings = ["--beam", "4", "--lm", str(arpa), "--lm-weight", "0.3", "--word-bonus", "1", "--threads", "1"]
    assert not main(["transcribe", str(variant), str(utterances[0].path), "--json", *settings])
    assert json.loads(capsys.readouterr().out)["text"] == texts(recognizer, utterances[:1])[0]


def test_an_evaluation_uses_it_and_states_which(variant, arpa, utterances, tmp_path):
    recognizer = Recognizer.open(variant, threads=1, beam=4, language_model=ArpaFile(arpa))
    manifest = tmp_path / "two.jsonl"
    manifest.write_text("".join(json.dumps({"audio_filepath": str(u.path), "text": u.text}) + "\n" for u in utterances[:2]))
    settings = ["--beam", "4", "--lm", str(arpa), "--workers", "1", "--output", str(tmp_path / "results")]
    assert not main(["evaluate", str(variant), str(manifest), *settings])
    records = [json.loads(line) for line in (tmp_path / "results" / "hypotheses.jsonl").read_text().splitlines()]
    assert sorted(one["text"] for one in records) == sorted(texts(recognizer, utterances[:2]))
    stated = json.loads((tmp_path / "results" / "run.json").read_text())["options"]["language_model"]
    assert stated == f"{sha256_file(arpa)}, weight 0.5, word bonus 1.5"
    arpa.with_name("other.arpa").write_bytes(arpa.read_bytes() + b"\n")
    other = [str(arpa.with_name("other.arpa")) if one == str(arpa) else one for one in settings]
    assert main(["evaluate", str(variant), str(manifest), *other]) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--beam", "4", "--lm", "{none}"], "cannot be used as a language model"),
        (["--lm", "{arpa}"], "needs a beam"),
        (["--beam", "4", "--lm-weight", "0.3"], "are of a language model"),
        (["--beam", "4", "--lm", "{arpa}", "--word-bonus", "1000"], "cannot have the word bonus"),
    ],
)
def test_what_does_not_go_together_is_refused(variant, arpa, utterances, capsys, options, said):
    options = [option.format(none=arpa.with_name("none"), arpa=arpa) for option in options]
    assert main(["transcribe", str(variant), str(utterances[0].path), *options]) == 2
    assert said in capsys.readouterr().err
