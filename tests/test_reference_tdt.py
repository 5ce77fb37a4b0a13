"""The full-context TDT kind of the reference recipe: its structure, its loss, its text, its committed speech."""
from __future__ import annotations

from collections import Counter

import pytest


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("nemo.collections.asr")
    from nemoport.reference import model, random

    path = tmp_path_factory.mktemp("random") / "tiny-tdt.nemo"
    _, rate = random.write("tiny-tdt", path)
    return model.restore(path), rate


def test_tiny_tdt_checkpoint_has_the_published_structure(tiny):
    asr, rate = tiny
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
        logits = asr.joint.joint(frames[:, :, t: t + 1].transpose(1, 2), prediction)[0, 0, 0]
        token, step = int(logits[: blank + 1].argmax()), int(logits[blank + 1:].argmax())
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
    from nemoport.reference import random

    asr = tiny[0]
    audio = torch.from_numpy(random.pseudo_speech_batch(7))
    durations: Counter = Counter()
    with torch.no_grad():
        frames, n_frames = asr.forward(input_signal=audio, input_signal_length=torch.full((6,), audio.shape[1]))
        found = asr.decoding.rnnt_decoder_predictions_tensor(frames, n_frames, return_hypotheses=True)
        for i, hypothesis in enumerate(found):
            tokens, steps = greedy(asr, frames[i: i + 1], int(n_frames[i]))
            assert tokens == hypothesis.y_sequence.tolist()
            durations.update(steps)
    texts = {tuple(hypothesis.y_sequence.tolist()) for hypothesis in found}
    assert len(texts) >= 5
    assert len({token for tokens in texts for token in tokens}) > 8
    assert set(durations) == {0, 1, 2, 3, 4}
