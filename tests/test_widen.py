"""Checkpoints of the decoder sizes that consumers have built in: the committed ones made wider, and random ones."""

import json

import pytest

from nemoport.export.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    pytest.importorskip("nemo")
    from nemoport.reference import widen

    path = tmp_path_factory.mktemp("wide") / "offline-tdt.nemo"
    widen.write("offline-tdt", path)
    return path


def test_a_wider_model_says_the_same(wide):
    """NeMo itself, on real speech: the joint's scores, whatever the tokens so far."""
    torch = pytest.importorskip("torch")
    from nemoport.reference import ctc, model

    old, new = model.restore(ctc.CHECKPOINTS / "offline-tdt.nemo"), model.restore(wide)
    decoding = read_checkpoint(str(wide)).spec.decoding
    assert (decoding.pred_layers, decoding.pred_hidden, decoding.joint_hidden) == (2, 640, 640)
    torch.manual_seed(0)
    tokens, frames = torch.randint(0, 128, (4, 20)), torch.randn(4, 6, 176)
    with torch.no_grad():
        scores = [asr.joint.joint(frames, asr.decoder.predict(tokens)[0]) for asr in (old, new)]
    torch.testing.assert_close(*scores)
    assert scores[0].std() > 0.1
    encoders = [asr.encoder.state_dict().values() for asr in (old, new)]
    assert all(torch.equal(a, b) for a, b in zip(*encoders, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "durations"), [("wide-streaming", ()), ("wide-tdt", (0, 1, 2, 3, 4))])
def test_a_random_checkpoint_of_the_built_in_size(random_checkpoint, preset, durations):
    path = random_checkpoint(preset)
    spec = read_checkpoint(str(path)).spec
    decoding = spec.decoding
    assert (decoding.pred_layers, decoding.pred_hidden, decoding.vocab_size) == (2, 640, 1024)
    assert tuple(decoding.durations) == durations and spec.frontend.n_mels == 128
    assert 1.0 < json.loads(path.with_name("made.json").read_text())[1] < 6.0
