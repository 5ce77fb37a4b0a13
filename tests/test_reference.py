"""The reference recipe: held-out text and voices, the transducer loss, the random checkpoints, the committed speech."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from pathlib import Path

import pytest

from nemoport.reference import reader, text, voices

AUDIO = Path(text.__file__).parent / "audio"


def committed(name: str) -> list[dict]:
    return [json.loads(line) for line in (AUDIO / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def sets() -> dict[str, list[dict]]:
    return {name: committed(name) for name in ("eval", "calibration")}


def test_committed_sets_share_nothing(sets):
    def content(row):
        return hashlib.sha256((AUDIO / row["audio_filepath"]).read_bytes()).hexdigest()

    for key in (lambda row: row["text"], lambda row: row["voice"].partition("+")[2], content):
        values = {name: [key(row) for row in rows] for name, rows in sets.items()}
        assert not set(values["eval"]) & set(values["calibration"])
    assert len({content(row) for rows in sets.values() for row in rows}) == sum(map(len, sets.values()))


def test_committed_audio_is_what_the_manifest_says(sets):
    soundfile = pytest.importorskip("soundfile")
    for row in itertools.chain(*sets.values()):
        info = soundfile.info(AUDIO / row["audio_filepath"])
        assert (info.samplerate, info.channels, info.format) == (16000, 1, "FLAC")
        assert info.duration == pytest.approx(row["duration"], abs=1e-3)
        assert row["text"] == text.normalise(row["text"])
        assert row["set"] in ("grammar", "unseen", "long")
    assert sum(path.stat().st_size for path in AUDIO.rglob("*") if path.is_file()) < 33e6  # 28 minutes, all synthesised


def test_voices_are_split_three_ways(sets):
    sides = {side: set(variants) for side, variants in voices.VARIANTS.items()}
    for one, other in itertools.combinations(sides, 2):
        assert not sides[one] & sides[other]
    for side, rows in sets.items():
        assert {row["voice"].partition("+")[2] for row in rows} <= sides[side]


def test_committed_sentences_are_not_trainable(sets):
    held_out = text.held_out_words()
    for row in itertools.chain(*sets.values()):
        if row["set"] == "unseen":
            assert held_out & set(row["text"].split())
            assert not text.trainable(row["text"], held_out)
    singles = [row["text"] for row in sets["eval"] if row["set"] == "grammar" and row["duration"] < 8]
    assert all(text.grammar_held_out(sentence) for sentence in singles)


def test_training_text_is_free_of_what_is_held_out(tmp_path):
    pytest.importorskip("soxr")
    from nemoport.reference import corpus

    held_out, reader_sentences = text.held_out_words(), reader.held_out_sentences()
    manifest = tmp_path / "m.jsonl"
    kept_back = sorted(reader_sentences)[0]
    lines = ["The pelican sang.", kept_back.upper() + ".", "a plain sentence about nothing much"]
    manifest.write_text("\n".join(json.dumps(dict(audio_filepath="x.wav", text=line)) for line in lines))
    assert [row["text"] for row in reader.rows(manifest, held_out=False)] == [lines[2]]
    assert [row["text"] for row in reader.rows(manifest, held_out=True)] == [kept_back]

    source = corpus.TextSource(["pelican", "window", "marble", "Boston"], lines, "test")
    sentences = [source.draw() for _ in range(2000)]
    assert not held_out & {word for sentence in sentences for word in sentence.split()}
    assert not any(text.grammar_held_out(sentence) for sentence in sentences)
    assert len(set(sentences)) > 500


def brute_force_loss(log_probs, labels: list[int], blank: int) -> float:
    """Minus the log of the summed probability of every alignment; log_probs f64 [T, U+1, V+1]."""
    n_frames, n_labels = log_probs.shape[0], len(labels)
    total = 0.0
    for frames in itertools.combinations_with_replacement(range(n_frames), n_labels):
        path = sum(float(log_probs[t, u, labels[u]]) for u, t in enumerate(frames))
        path += sum(float(log_probs[t, sum(f <= t for f in frames), blank]) for t in range(n_frames))
        total += math.exp(path)
    return -math.log(total)


def test_loss_is_the_sum_over_alignments_and_its_gradient():
    torch = pytest.importorskip("torch")
    from nemoport.reference.loss import _Transducer, transducer_loss

    torch.manual_seed(0)
    logits = torch.randn(3, 4, 4, 6)
    targets = torch.randint(0, 5, (3, 3))
    n_frames, n_labels = torch.tensor([4, 3, 2]), torch.tensor([3, 1, 0])
    found = transducer_loss(logits, targets, n_frames, n_labels, blank_id=5)
    log_probs = torch.log_softmax(logits.double(), -1)
    for i in range(3):
        expected = brute_force_loss(log_probs[i, : n_frames[i]], targets[i, : n_labels[i]].tolist(), 5)
        assert float(found[i]) == pytest.approx(expected, rel=1e-5)

    blank, emit = torch.randn(3, 4, 4, dtype=torch.double) - 2, torch.randn(3, 4, 3, dtype=torch.double) - 2
    # Labels beyond an utterance's own are zero, as transducer_loss makes them; they have no gradient to check.
    emit = torch.where((torch.arange(3)[None] < n_labels[:, None])[:, None], emit, 0.0)
    blank, emit = blank.requires_grad_(), emit.requires_grad_()
    assert torch.autograd.gradcheck(lambda b, e: _Transducer.apply(b, e, n_frames, n_labels).sum(), (blank, emit))


@pytest.fixture(scope="module")
def tiny(random_checkpoint):
    from nemoport.reference import model

    path = random_checkpoint("tiny")
    parameters, rate = json.loads(path.with_name("made.json").read_text())
    return model.restore(path), parameters, rate


def test_tiny_random_checkpoint_has_the_published_structure(tiny):
    asr, parameters, rate = tiny
    encoder = asr.cfg.encoder
    assert parameters == sum(parameter.numel() for parameter in asr.parameters())
    assert [list(context) for context in encoder.att_context_size] == [[70, 13], [70, 6], [70, 1], [70, 0]]
    assert (encoder.subsampling, encoder.subsampling_factor, encoder.conv_kernel_size) == ("dw_striding", 8, 9)
    assert (encoder.conv_norm_type, encoder.conv_context_size, encoder.att_context_style) == (
        "layer_norm",
        "causal",
        "chunked_limited",
    )
    assert not encoder.use_bias and not encoder.xscaling and encoder.causal_downsampling
    assert asr.cfg.preprocessor.features == 128 and asr.cfg.preprocessor.normalize == "NA"
    assert asr.cfg.decoder.prednet.pred_rnn_layers == 2 and asr.cfg.joint.jointnet.activation == "relu"
    assert "joint.joint_net.2.weight" in asr.state_dict()
    assert 1.0 < rate < 6.0


def test_tiny_random_checkpoint_listens(tiny):
    torch = pytest.importorskip("torch")
    from nemoport.reference import random_checkpoint as random

    asr = tiny[0]
    audio = torch.from_numpy(random.pseudo_speech_batch(7))
    with torch.no_grad():
        frames, n_frames = asr.forward(input_signal=audio, input_signal_length=torch.full((6,), audio.shape[1]))
        found = asr.decoding.rnnt_decoder_predictions_tensor(frames, n_frames, return_hypotheses=True)
    texts = {tuple(hypothesis.y_sequence.tolist()) for hypothesis in found}
    assert len(texts) >= 5  # no two clips alike, one of them perhaps silent
    assert len({token for tokens in texts for token in tokens}) > 8


def test_published_tokenizer_size_is_reachable(tmp_path):
    pytest.importorskip("sentencepiece")
    from nemoport.reference import model
    from nemoport.reference import random_checkpoint as random

    size = model.PRESETS["nemotron-en-0.6b"]
    folder = model.write_tokenizer(random.tokenizer_lines(), size.vocabulary, tmp_path)
    assert len((folder / "vocab.txt").read_text().splitlines()) == 1024
    with pytest.raises(ValueError, match="give it more words"):
        model.write_tokenizer(["a b"], 1024, tmp_path / "poor")
