"""Attention within a window (parakeet-tdt_ctc-1.1b, and NeMo's change_attention_model), held against NeMo's own."""

from dataclasses import replace

import numpy as np
import pytest
from quantizing import FOR_OFFLINE, short_manifest

from nemoport.artifact import Artifact
from nemoport.export.blocked_attention import BLOCK
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.progress import silent
from nemoport.quantize import build_variant
from nemoport.recognizer import Recognizer
from nemoport.reference import animate, model, presets
from nemoport.reference import random_checkpoint as made_up
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.spec import ModelSpec
from nemoport.validate import nemo, nemo_runs

WINDOW = presets.PRESETS["tiny-tdt_ctc-local"].local_attention
# Around the window and its double, which NeMo's chunks are multiples of; around a block of queries; one frame.
ENC_FRAMES = [
    1,
    WINDOW - 1,
    WINDOW,
    WINDOW + 1,
    2 * WINDOW,
    2 * WINDOW + 1,
    4 * WINDOW,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    3 * BLOCK + 5,
]


def masked(config) -> None:
    """Attention that is limited by a mask, not by NeMo's chunks."""
    config.encoder.self_attention_model = "rel_pos"


@pytest.fixture(scope="module", params=["local", "masked"])
def checkpoint(request, random_checkpoint, tmp_path_factory):
    if request.param == "local":
        return read_checkpoint(str(random_checkpoint("tiny-tdt_ctc-local")))
    folder = tmp_path_factory.mktemp("masked")
    size = replace(presets.PRESETS["tiny-tdt_ctc-local"], decoders="transducer")
    lines = made_up.tokenizer_lines(size.vocabulary)
    config = model.config(size, model.write_tokenizer(lines, size.vocabulary, folder))
    masked(config)
    with nemo.quiet():
        asr = model.nemo_class(size)(cfg=config).eval()
        animate.animate(asr, made_up.pseudo_speech_batch(0))
        asr.save_to(str(folder / "model.nemo"))
    return read_checkpoint(str(folder / "model.nemo"))


@pytest.fixture(scope="module")
def theirs(checkpoint):
    return nemo.restore(checkpoint)


@pytest.fixture(scope="module")
def built(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    export_checkpoint(checkpoint, folder)
    return folder


def test_the_window_is_the_configs(checkpoint, theirs):
    spec = checkpoint.spec
    assert spec.offline.attention_enc_frames == WINDOW == theirs.encoder.att_context_size[0]
    assert ModelSpec.from_dict(spec.to_dict()) == spec and spec.to_dict()["offline"]["attention_enc_frames"] == WINDOW


@pytest.mark.parametrize("frames", ENC_FRAMES)
def test_the_encoder_equals_nemos(frames, built, checkpoint, theirs):
    """A batch of a full utterance and of shorter ones, whose padding holds what must not be transcribed."""
    import torch

    random, mel_frames = np.random.default_rng(frames), 8 * frames - 7
    mel = random.standard_normal((3, checkpoint.spec.frontend.n_mels, mel_frames)).astype(np.float32)
    lengths = np.array([mel_frames, max(1, mel_frames - 9), max(1, mel_frames // 2)])
    with nemo.exact(theirs):
        wanted, wanted_lengths = theirs.encoder(audio_signal=torch.from_numpy(mel), length=torch.from_numpy(lengths))
    loud = mel + 100 * (np.arange(mel_frames) >= lengths[:, None, None])
    session = OnnxSession.open(Artifact.open(built / "fp32"), threads=1)
    found, found_lengths, _ = session.encode(loud.astype(np.float32), lengths, session.initial_state(3))
    assert found_lengths.tolist() == wanted_lengths.tolist() and found_lengths[0] == frames
    for row, count in enumerate(found_lengths):
        assert np.abs(found[row, :count] - wanted[row, :, :count].numpy().T).max() < 5e-5


def test_full_attention_is_far_from_it(checkpoint, theirs):
    """The negative control: without the window, or with one frame more, frames differ by more than the limit above."""
    import torch

    from nemoport.export.encoder_offline import OfflineEncoder

    mel, length = torch.randn(1, checkpoint.spec.frontend.n_mels, 200), torch.tensor([200])
    with nemo.exact(theirs):
        wanted, _ = theirs.encoder(audio_signal=mel, length=length)
        for window, far in ((WINDOW, False), (WINDOW + 1, True), (None, True)):
            spec = replace(checkpoint.spec.offline, attention_enc_frames=window)
            found, _ = OfflineEncoder(theirs.state_dict(), spec)(mel, length)
            assert (float((found - wanted).abs().max()) > 1e-3) == far


@pytest.mark.parametrize("variant", ["fp32", "fp16", "int8-weight", "int8-dynamic"])
def test_tokens_are_nemos(variant, built, theirs, tmp_path):
    if variant != "fp32":
        build_variant(built, variant, short_manifest(tmp_path, count=FOR_OFFLINE, speech="-tdt"), progress=silent)
    recognizer, spoken = Recognizer.open(built / variant, threads=1), 0
    for seed in (77, 78):
        samples = made_up.pseudo_speech(seed, 12.0)
        found = next(recognizer.transcribe([("", samples)]))
        with nemo.exact(theirs):
            wanted = nemo_runs.offline(theirs, samples, None)
        spoken += len(found.tokens)
        if variant == "fp32":
            assert list(found.tokens) == list(wanted.tokens) and found.text == wanted.text
    assert spoken > 5


def test_the_positions_of_a_window_are_a_constant(random_checkpoint, tmp_path):
    """Projected once, not in each run; and no product of weights alone is left, which OpenVINO folds and nncf then misses."""
    import onnx

    from nemoport.export.build import export_checkpoint
    from nemoport.quantize.graph import layer_matmuls

    artifact = export_checkpoint(read_checkpoint(str(random_checkpoint("tiny-tdt_ctc-local"))), tmp_path)
    products = [node.name for node in layer_matmuls(onnx.load(artifact.encoder, load_external_data=False))]
    assert products and not [name for name in products if "linear_pos" in name]
