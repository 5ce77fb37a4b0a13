"""Structures that become those of the exported kinds: the transducer of a hybrid with CTC, and the scaled input of an encoder
(xscaling). Held against NeMo's own restoring of those very files, whatever decoding they were saved with."""

from pathlib import Path

import numpy as np
import pytest

from nemoport.artifact import Artifact
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.recognizer import Recognizer
from nemoport.reference import animate, model, random_checkpoint
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.validate import nemo, nemo_runs


def hybrid(config) -> str:
    config.aux_ctc = {
        "ctc_loss_weight": 0.3,
        "decoder": {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
            "feat_in": None,
            "num_classes": -1,
            "vocabulary": [],
        },
        "decoding": {"strategy": "greedy"},
    }
    return "EncDecHybridRNNTCTCBPEModel"


def scaled(config) -> str:
    config.encoder.xscaling = True
    return "EncDecRNNTBPEModel"


def both(config) -> str:
    scaled(config)
    config.decoder.prednet.pred_rnn_layers = 1
    config.encoder.use_bias = True
    config.preprocessor.features = config.encoder.feat_in = 80
    config.preprocessor.n_fft = None
    return hybrid(config)


STRUCTURES = {"hybrid": (hybrid, "tiny-tdt"), "xscaling": (scaled, "tiny-tdt"), "both, streaming": (both, "tiny")}


@pytest.fixture(scope="module", params=STRUCTURES)
def path(request, tmp_path_factory) -> Path:
    from nemo.collections.asr import models
    from omegaconf import OmegaConf

    change, preset = STRUCTURES[request.param]
    folder = tmp_path_factory.mktemp("structure")
    size = model.PRESETS[preset]
    lines = random_checkpoint.tokenizer_lines(size.vocabulary)
    config = model.config(size, model.write_tokenizer(lines, size.vocabulary, folder))
    OmegaConf.set_struct(config, False)
    with nemo.quiet():
        asr = vars(models)[change(config)](cfg=config).eval()
        animate.animate(asr, random_checkpoint.pseudo_speech_batch(0))
        asr.save_to(str(folder / "model.nemo"))
    return folder / "model.nemo"


def test_the_graphs_are_nemos_transducer(path, tmp_path):
    from nemo.collections.asr.models import ASRModel

    checkpoint = read_checkpoint(str(path))
    folder = export_checkpoint(checkpoint, tmp_path / "build").folder
    with nemo.quiet():
        theirs = ASRModel.restore_from(str(path), map_location="cpu").eval()
    theirs.preprocessor.featurizer.dither = 0.0
    streaming, spoken = checkpoint.spec.streaming, 0
    recognizer = Recognizer.open(folder, lookahead=max(streaming.lookaheads) if streaming else None, threads=1)
    for seed in (77, 78):
        samples = random_checkpoint.pseudo_speech(seed, 3.0)
        found = next(recognizer.transcribe([("", samples)]))
        for oracle in (theirs, nemo.restore(checkpoint)):
            with nemo.exact(oracle):
                run = nemo_runs.offline(oracle, samples, recognizer.lookahead)
            assert list(run.tokens) == list(found.tokens) and run.text == found.text
        spoken += len(found.tokens)
    assert spoken > 5
    if streaming is None:
        session = OnnxSession.open(Artifact.open(folder), threads=1)
        mel = np.random.default_rng(0).standard_normal((1, checkpoint.spec.frontend.n_mels, 200)).astype(np.float32)
        frames, _, _ = session.encode(mel, np.array([200]), session.initial_state(1))
        import torch

        with nemo.exact(theirs):
            wanted, _ = theirs.encoder(audio_signal=torch.from_numpy(mel), length=torch.tensor([200]))
        np.testing.assert_allclose(frames[0], wanted[0].T.numpy(), atol=2e-5)
