"""The full-context TDT kind of the reference recipe: its structure, its loss, its text, its committed speech."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nemoport.reference import text as reference_text

AUDIO = Path(reference_text.__file__).parent / "audio"


@pytest.fixture(scope="module")
def tiny(random_checkpoint):
    from nemoport.reference import model

    path = random_checkpoint("tiny-tdt")
    _, rate = json.loads(path.with_name("made.json").read_text())
    return model.restore(path), rate, path


def test_tiny_tdt_checkpoint_has_the_published_structure(tiny):
    asr, rate, _ = tiny
    encoder, weights = asr.cfg.encoder, asr.state_dict()
    assert list(encoder.att_context_size) == [-1, -1] and encoder.att_context_style == "regular"
    assert (encoder.subsampling, encoder.subsampling_factor, encoder.conv_kernel_size) == ("dw_striding", 8, 9)
    assert encoder.conv_norm_type == "batch_norm" and encoder.conv_context_size is None
    assert not encoder.use_bias and not encoder.xscaling and not encoder.causal_downsampling
    assert asr.cfg.preprocessor.features == 128 and asr.cfg.preprocessor.normalize == "per_feature"
    assert asr.cfg.loss.loss_name == "tdt" and asr.cfg.decoding.model_type == "tdt"
    assert list(asr.cfg.decoding.durations) == list(asr.cfg.loss.tdt_kwargs.durations) == [0, 1, 2, 3, 4]
    assert asr.cfg.joint.num_extra_outputs == 5
    assert weights["joint.joint_net.2.weight"].shape[0] == len(asr.tokenizer.vocab) + 1 + 5
    assert 1.0 < rate < 6.0


def test_tiny_tdt_batch_norms_are_not_the_identity(tiny):
    weights = tiny[0].state_dict()
    name = "encoder.layers.1.conv.batch_norm"
    for key, identity in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
        assert float((weights[f"{name}.{key}"] - identity).abs().max()) > 0.1, key


def greedy(asr, frames, n_frames: int) -> tuple[list[int], list[int]]:
    """(tokens, durations) of one utterance, by the rule of the TDT paper; frames f32 [1, d, T]."""
    import torch

    blank = len(asr.tokenizer.vocab)
    tokens, durations, t, in_place = [], [], 0, 0
    prediction, state = asr.decoder.predict(None, None, add_sos=False, batch_size=1)
    while t < n_frames:
        logits = asr.joint.joint(frames[:, :, t : t + 1].transpose(1, 2), prediction)[0, 0, 0]
        token, step = int(logits[: blank + 1].argmax()), int(logits[blank + 1 :].argmax())
        durations.append(step)
        if token == blank:
            step = max(step, 1)
        else:
            tokens.append(token)
            prediction, state = asr.decoder.predict(torch.tensor([[token]]), state, add_sos=False)
        in_place = in_place + 1 if step == 0 else 0
        t, in_place = (t + 1, 0) if in_place == 10 else (t + step, in_place)
    return tokens, durations


def test_tiny_tdt_checkpoint_listens_and_takes_every_duration(tiny):
    torch = pytest.importorskip("torch")
    from nemoport.reference import random_checkpoint as random

    asr = tiny[0]
    audio = torch.from_numpy(random.pseudo_speech_batch(7))
    durations: Counter = Counter()
    with torch.no_grad():
        frames, n_frames = asr.forward(input_signal=audio, input_signal_length=torch.full((6,), audio.shape[1]))
        found = asr.decoding.rnnt_decoder_predictions_tensor(frames, n_frames, return_hypotheses=True)
        for i, hypothesis in enumerate(found):
            tokens, steps = greedy(asr, frames[i : i + 1], int(n_frames[i]))
            assert tokens == hypothesis.y_sequence.tolist()
            durations.update(steps)
    texts = {tuple(hypothesis.y_sequence.tolist()) for hypothesis in found}
    assert len(texts) >= 5
    assert len({token for tokens in texts for token in tokens}) > 8
    assert set(durations) == {0, 1, 2, 3, 4}


def test_loss_and_gradient_are_those_of_transformers():
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("transformers.loss.loss_tdt").tdt_loss
    from nemoport.reference.loss import tdt_loss

    torch.manual_seed(0)
    # Ragged, one utterance without labels, one of fewer frames than the longest step, one of a single frame.
    n_frames, n_labels = torch.tensor([9, 7, 5, 3, 1]), torch.tensor([4, 4, 0, 2, 1])
    targets = torch.randint(0, 6, (5, 4))
    logits = torch.randn(5, 9, 5, 7 + 5, requires_grad=True)
    found = tdt_loss(logits, targets, n_frames, n_labels, blank_id=6, sigma=0.02)
    expected = oracle(
        logits[..., :7],
        logits[..., 7:],
        targets,
        n_frames,
        n_labels,
        blank_token_id=6,
        durations=[0, 1, 2, 3, 4],
        sigma=0.02,
        reduction="none",
    )
    assert torch.allclose(found, expected, rtol=1e-5)
    weights = torch.tensor([1.0, 0.5, 2.0, 1.0, 3.0])
    grads = [torch.autograd.grad((weights * loss).sum(), logits, retain_graph=True)[0] for loss in (found, expected)]
    assert torch.allclose(*grads, atol=1e-5)
    assert float(grads[0].abs().max()) > 0.1


def test_cutting_a_chain_keeps_frames_and_labels_together():
    torch = pytest.importorskip("torch")
    from nemoport.reference.step import stretches

    frames = torch.arange(10.0).expand(2, 3, 10)  # the value is the frame's number
    predictions = torch.arange(5.0).expand(2, 2, 5)  # the value is the number of labels before
    targets = torch.tensor([[11, 12, 13, 14], [21, 22, 0, 0]])
    cuts = [[(4 * 1280 + 100, 3), (7 * 1280 - 100, 3)], []]  # the middle stretch of the first holds no label
    found, n_frames, states, labels, n_labels = stretches(
        cuts, frames, torch.tensor([10, 6]), predictions, targets, torch.tensor([4, 2])
    )
    assert n_frames.tolist() == [4, 3, 3, 6] and n_labels.tolist() == [3, 0, 1, 2]
    assert [found[i, 0, : n_frames[i]].tolist() for i in range(4)] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 1, 2, 3, 4, 5]]
    assert [states[i, 0, : n_labels[i] + 1].tolist() for i in range(4)] == [[0, 1, 2, 3], [3], [3, 4], [0, 1, 2]]
    assert [labels[i, : n_labels[i]].tolist() for i in range(4)] == [[11, 12, 13], [], [14], [21, 22]]


def clips_of(n: int):
    from nemoport.reference import data

    noise = np.random.default_rng(0)
    return [data.Clip((3000 * noise.standard_normal(16000 + 800 * i)).astype(np.int16), [i, i, i], False) for i in range(n)]


def test_a_long_chain_is_cut_in_silence():
    from nemoport.reference import data

    samples, tokens, cuts = data.long_chain(clips_of(8), random.Random(1), np.random.default_rng(1), 30.0)
    assert 30 <= len(samples) / 16000 < 36
    assert len(cuts) > 10 and len(tokens) == 3 * (len(cuts) + 1)
    loud = np.abs(samples).max()
    for sample, label in cuts:
        assert label % 3 == 0 and tokens[label - 3] == tokens[label - 1]
        assert np.abs(samples[sample - 1000 : sample + 1000]).max() < loud / 4


def test_shares_of_long_and_silent_batches():
    from nemoport.reference import data

    clips = clips_of(300)
    batches = list(data.batches(clips, 64, 0.1, 0, long_share=0.2, longest_s=60.0, silent_share=0.5))
    kinds = Counter(
        "long" if len(batch[0]) > 2 else "silent" if any(not example[1] for example in batch) else "plain" for batch in batches
    )
    assert kinds["long"] > 5 and kinds["silent"] > 8 and kinds["plain"] > 8
    assert max(len(example[0]) for batch in batches for example in batch) < (60 + 18) * 16000  # a clip more than asked at most
    # The streaming kind asks for neither and gets the batches that it always got.
    plain = list(data.batches(clips, 64, 0.1, 0))
    assert not any(len(example) > 2 or not example[1] for batch in plain for example in batch)


def test_an_encoder_of_full_context_starts_from_a_causal_one(tiny, tmp_path):
    torch = pytest.importorskip("torch")
    from nemoport.reference import conditioning, model
    from nemoport.reference import random_checkpoint as made_up

    size = model.Dimensions(2, 64, 4, 32, 32, 32, 64)
    asr = tiny[0]
    streaming = model.build(size, model.write_tokenizer(made_up.tokenizer_lines(), 64, tmp_path)).eval()
    full = model.build(model.PRESETS["tiny-tdt"], model.write_tokenizer(made_up.tokenizer_lines(), 96, tmp_path / "tdt")).eval()
    audio = torch.from_numpy(made_up.pseudo_speech_batch(3))
    n_samples = torch.full((6,), audio.shape[1])
    conditioning.transplant(streaming, full, audio, n_samples)
    taps = streaming.encoder.layers[0].conv.depthwise_conv.weight
    placed = full.encoder.layers[0].conv.depthwise_conv.weight
    assert torch.equal(placed[..., :5], taps[..., 4:]) and not placed[..., 5:].any()
    # On features at the mean both subsamplings see the same thing in their first convolution, away from the edges.
    mel = torch.full((1, 1, 40, 128), 0.0)
    features, lengths = streaming.preprocessor(input_signal=audio, length=n_samples)
    mean = torch.cat([f[:, : n - 1].flatten() for f, n in zip(features, lengths, strict=True)]).mean()
    with torch.no_grad():
        seen = [m.encoder.pre_encode.conv[0](torch.full_like(mel, v))[0, :, 9, 30] for m, v in ((streaming, mean), (full, 0.0))]
    assert torch.allclose(*seen, atol=1e-4)
    # A model of other widths is refused rather than half filled.
    with pytest.raises((ValueError, RuntimeError)):
        other = model.build(model.Dimensions(3, 64, 4, 32, 32, 32, 64), tmp_path)
        conditioning.transplant(other.eval(), asr, audio, n_samples)


def test_written_english():
    from nemoport.reference import written

    for spoken, line in (
        ("what time does the garage open on monday", "What time does the garage open on Monday?"),
        ("anna said that i'm late but not in may", "Anna said that I'm late, but not in may."),
        ("the first of may is a friday", "The first of May is a Friday."),
        ("do", "Do."),
    ):
        assert written.english(spoken) == line
        assert written.spoken(line) == spoken


def test_transcripts_are_tidied_or_refused():
    from nemoport.reference import written

    assert written.tidy("«Pardon,» répéta-t-il.") == "Pardon, répéta-t-il."
    assert written.tidy("Le commissaire s’est mis au travail…") == "Le commissaire s'est mis au travail."
    assert written.tidy("j'ai l'impression qu'il a grandi!") == "J'ai l'impression qu'il a grandi."
    assert written.tidy("où est-il ?") == "Où est-il?"
    assert written.tidy("Route 66") is None and written.tidy(" ... ") is None
    assert written.spoken("Réveille-moi à l'œil, D'ACCORD?") == "réveille moi à l'œil d'accord"


def test_french_training_text_is_free_of_what_is_held_out():
    from nemoport.reference import french, written

    held_out = french.held_out_words()
    assert {"pélican", "pélicans", "cousine", "cousin"} & held_out == {"pélican", "pélicans", "cousine"}
    lines = ["Le pélican dort.", "Une phrase simple.", "La tortue marche."]
    source = french.TextSource("pélican fenêtre marbre abaissâmes Paris".split(), lines, "test")
    sentences = [source.draw() for _ in range(2000)]
    assert len(set(sentences)) > 1000 and "Une phrase simple." in sentences
    for sentence in sentences:
        assert not held_out & set(written.spoken(sentence).replace("'", " ").split()), sentence
        assert not french.grammar_held_out(sentence)
        assert sentence == written.tidy(sentence)
    assert not any("abaissâmes" in sentence or "le arbre" in sentence.lower() for sentence in sentences)
    assert written.elided("je ouvre la école de le ami parce que il a le onze") == (
        "j'ouvre l'école de l'ami parce qu'il a le onze"
    )


@pytest.fixture(scope="module")
def sets() -> dict[str, list[dict]]:
    return {
        name: [json.loads(line) for line in (AUDIO / f"{name}.jsonl").read_text().splitlines()]
        for name in ("eval-tdt", "calibration-tdt")
    }


def test_committed_written_sets(sets):
    from nemoport.reference import french, text, voices, written

    soundfile = pytest.importorskip("soundfile")
    for name, rows in sets.items():
        side = name.partition("-")[0]
        for index, row in enumerate(rows):
            assert soundfile.info(AUDIO / row["audio_filepath"]).duration == pytest.approx(row["duration"], abs=1e-3)
            assert row["text"] == written.tidy(row["text"])
            assert row["voice"].partition("+")[2] in voices.VARIANTS[side]
            assert row["lang"] == row["set"][-2:] and row["voice"].startswith(row["lang"])
            assert row["duration"] >= (1.0 if index < 80 else 0.9)  # one of the further ones is "Sell the light."
            if row["set"] in ("unseen-fr", "unseen-en"):
                kept = french.held_out_words() if row["lang"] == "fr" else text.held_out_words()
                assert kept & set(written.spoken(row["text"]).replace("'", " ").split())
            if row["set"] == "grammar-fr" and row["duration"] < 8:
                assert french.grammar_held_out(row["text"])
    # English clips are those of the other sets, with the same words, but for the further ones.
    plain = {
        row["audio_filepath"]: row["text"]
        for name in ("eval", "calibration")
        for row in map(json.loads, (AUDIO / f"{name}.jsonl").read_text().splitlines())
    }
    english = [row for row in itertools.chain(*sets.values()) if row["lang"] == "en"]
    further = [row for row in english if row["audio_filepath"].startswith("eval-tdt/")]
    english = [row for row in english if row not in further]
    assert len(english) > 60 == len(further)
    assert all(written.spoken(row["text"]) == plain[row["audio_filepath"]] for row in english)
    for key in ("text", "audio_filepath"):
        assert not {row[key] for row in sets["eval-tdt"]} & {row[key] for row in sets["calibration-tdt"]}


def test_errors_are_found_where_they_are():
    pytest.importorskip("jiwer")
    from nemoport.reference.evaluate import errors_by_word

    assert errors_by_word("a b c d".split(), "a x c d".split()) == [0, 1, 0, 0]
    assert errors_by_word("a b c d".split(), "a d".split()) == [0, 1, 1, 0]
    assert errors_by_word("a b c d".split(), "y a b x z c d".split()) == [1, 2, 0, 0]


def test_a_long_pass_keeps_account_of_its_clips(sets):
    pytest.importorskip("soundfile")
    from nemoport.reference import evaluate

    rows = evaluate.committed_rows(AUDIO / "eval-tdt.jsonl", as_written=True)
    samples, places = evaluate.long_pass(rows, 390.0, 0.4, "0")
    assert 370 < len(samples) / 16000 <= 390.4
    first = [index for _, index in places[: len(rows)]]
    assert len(set(first)) == len(first) > 100  # all of them before any comes again
    (start_s, index), (after_s, _) = places[3], places[4]
    assert after_s - start_s == pytest.approx(rows[index]["duration"] + 0.4, abs=1e-3)


def test_training_steps_lower_the_loss(tiny):
    torch = pytest.importorskip("torch")
    from nemoport.reference import data, model, step

    asr = model.restore(tiny[2])
    step.prepare(asr, seed=0, spec_augment=False, freeze_subsampling=False)
    rng, noise = random.Random(0), np.random.default_rng(0)
    clips = clips_of(4)
    batch = data.collate(
        [
            data.long_chain(clips, rng, noise, 6.0),
            (data.augmented(clips[0], rng, noise), clips[0].tokens),
            data.without_speech(rng, noise),
        ]
    )
    head = torch.nn.Linear(asr.encoder.d_model, asr.joint.num_classes_with_blank)
    optimizer = torch.optim.AdamW([*asr.parameters(), *head.parameters()], lr=3e-3)
    history = []
    for _ in range(15):
        transducer, ctc = step.losses(asr, head, batch)
        optimizer.zero_grad()
        (transducer + ctc).backward()
        assert all(torch.isfinite(p.grad).all() for p in asr.parameters() if p.grad is not None)
        optimizer.step()
        history.append(transducer.item())
    assert history[-1] < 0.7 * history[0]
    assert all(p.grad is not None for p in asr.joint.parameters())


@pytest.fixture(scope="module")
def offline():
    pytest.importorskip("nemo.collections.asr")
    from nemoport.reference import model

    return model.restore(AUDIO.parent / "checkpoints/offline-tdt.nemo")


def test_committed_tdt_checkpoint_writes_both_languages(offline):
    from nemoport.reference import evaluate

    sets = evaluate.by_set(AUDIO / "eval-tdt.jsonl", as_written=True)
    for language in ("en", "fr"):
        rows = sets[f"eval-tdt: grammar-{language}"][:8]
        rates = evaluate.scores(offline, rows, [])
        assert rates["WER of words"] <= 0.3 and rates["WER of exact text"] <= 0.4, rates
    assert (AUDIO.parent / "checkpoints/offline-tdt.nemo").stat().st_size < 25e6


@pytest.mark.slow
def test_committed_tdt_checkpoint_hears_390_s_at_once_as_it_hears_clips(offline):
    from nemoport.reference import evaluate

    rows = evaluate.committed_rows(AUDIO / "eval-tdt.jsonl", as_written=True)
    sections = evaluate.long_table(offline, rows, 390.0, 0.4, "0")
    assert len(sections) == 7
    words, errors, errors_alone = (sum(column) for column in zip(*sections, strict=True))
    assert errors <= errors_alone + 0.03 * words
    for words, errors, errors_alone in sections:
        assert errors <= errors_alone + 0.15 * words
