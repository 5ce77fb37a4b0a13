"""The layout speech-core: a contract test. The C++ library cannot be run here, so what its NemotronMultilingualStt reads and
feeds is replayed with onnxruntime."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import consumers
import numpy as np
import pytest
import samples
import soundfile

from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.package.layouts import speech_core
from nemoport.package.layouts.speech_core import LOOKAHEAD
from nemoport.prompt import PromptSpec
from nemoport.runtimes import open_session
from nemoport.spec import ModelSpec
from nemoport.tokens import Pieces, SpellingRule

CLIP = Path(__file__).parent.parent / "reference/audio/eval/001.flac"
STREAMING = ModelSpec.from_dict(samples.SPEC)
PROMPT = replace(
    STREAMING,
    prompt=PromptSpec(4, {"de": 1, "auto": 3}),
    streaming=replace(STREAMING.streaming, left_context_enc_frames=56, lookaheads=(3, 0)),
)
PIECES = Pieces(["<unk>", "\u2581a"], SpellingRule())


@pytest.fixture(scope="module")
def prompted(random_checkpoint, tmp_path_factory):
    """A build of the tiny prompted model, and its package."""
    build, folder = (tmp_path_factory.mktemp(name) for name in ("build", "speech-core"))
    export_checkpoint(read_checkpoint(str(random_checkpoint("tiny-multilingual"))), build / "en")
    speech_core.lay_out(build / "en", ["fp32"], folder)
    return build / "en", folder


def replay(folder: Path, mel: np.ndarray, language: str) -> list[int]:
    encoder, decoder, joint = (consumers.opened(folder / f"{name}.onnx") for name in ("encoder", "decoder", "joint"))
    sizes = json.loads((folder / "config.json").read_text())  # what an app sets in its Config
    languages = json.loads((folder / "languages.json").read_text())
    blank = max(map(int, json.loads((folder / "vocab.json").read_text()))) + 1
    mask = np.zeros((1, languages["numPrompts"]), np.float32)
    mask[0, languages["promptDictionary"].get(language, languages["autoSlot"])] = 1
    layers, width, left = sizes["encoder_layers"], sizes["encoder_hidden"], sizes["att_left_context"]
    caches = {
        "pre_cache": np.zeros((1, sizes["mel_bins"], sizes["pre_cache_size"]), np.float32),
        "cache_last_channel": np.zeros((layers, 1, left, width), np.float32),
        "cache_last_time": np.zeros((layers, 1, width, sizes["conv_cache_size"]), np.float32),
        "cache_last_channel_len": np.zeros(1, np.int32),
    }
    zeros = np.zeros((sizes["decoder_layers"], 1, sizes["decoder_hidden"]), np.float32)
    state, tokens, size = [blank, (zeros, zeros)], [], sizes["mel_frames"]
    decoder_names, joint_names = ([one.name for one in graph.get_inputs()] for graph in (decoder, joint))  # by position
    assert len(decoder_names) == 3 and len(joint_names) == 2

    def step(frame, token, states):
        fed = dict(zip(decoder_names, (np.array([[token]], np.int64), *states), strict=True))
        out = consumers.named(decoder, fed)
        assert out["decoder_output"].shape == (1, 1, sizes["decoder_hidden"])
        (scores,) = joint.run(None, dict(zip(joint_names, (frame[None, None], out["decoder_output"]), strict=True)))
        return scores.ravel()[: blank + 1], (out["h"], out["c"])

    padded = np.pad(mel, ((0, 0), (0, -mel.shape[1] % size)))
    for start in range(0, padded.shape[1], size):
        window = np.ascontiguousarray(padded[None, :, start : start + size])
        feeds = {"audio_signal": window, "audio_length": np.array([size], np.int32), "language_mask": mask, **caches}
        out = consumers.named(encoder, feeds)
        assert out["encoded_length"].dtype == out["new_cache_last_channel_len"].dtype == np.int32
        np.testing.assert_array_equal(out["new_pre_cache"], window[:, :, -sizes["pre_cache_size"] :])
        caches = {name: out[f"new_{name}"] for name in caches}
        frames = out["encoded_output"][0][: int(out["encoded_length"][0])]
        tokens += consumers.decode(step, frames, state, blank, sizes["max_symbols"])
    return tokens


def test_fed_as_speech_core_feeds_the_graphs_say_what_nemoport_says(prompted):
    build, folder = prompted
    artifact = Artifact.open(build / "fp32")
    session, spec = open_session(artifact, threads=1), artifact.spec
    mel = consumers.log_mel(spec, soundfile.read(CLIP, dtype="float32")[0])
    windows = list(consumers.windows(spec, LOOKAHEAD, mel))
    found = {name: replay(folder / "fp32", mel, name) for name in ("de-DE", "auto", "none such")}
    for name, slot in (("de-DE", spec.prompt.slot("de-DE")), ("auto", spec.prompt.slot("auto"))):
        assert found[name] == consumers.own_tokens(session, spec, windows, [slot]) != []
    assert found["none such"] == found["auto"] != found["de-DE"]
    own = consumers.own_tokens(speech_core.open_variant(folder, "fp32", spec), spec, windows, [spec.prompt.slot("auto")])
    assert own == found["auto"]
    assert (folder / "fp32/encoder.onnx.data").read_bytes() == (build / "fp32/encoder_model.onnx.data").read_bytes()


def test_what_speech_core_cannot_run_is_named(build, tmp_path):
    def found(spec, pieces=PIECES):
        return "; ".join(speech_core.problems(spec, pieces))

    assert not found(PROMPT)
    assert "with a prompt only" in found(STREAMING) and "with a prompt only" in found(replace(PROMPT, kind="streaming-ctc"))
    assert "lookaheads 6, 0, where it has 3" in found(replace(PROMPT, streaming=replace(PROMPT.streaming, lookaheads=(6, 0))))
    assert "preemphasis 0.5" in found(replace(PROMPT, frontend=replace(PROMPT.frontend, preemphasis=0.5)))
    assert "as wide" in found(replace(PROMPT, decoding=replace(PROMPT.decoding, joint_hidden=1)))
    assert "inside" in found(PROMPT, Pieces(["a\u2581b"], SpellingRule()))
    with pytest.raises(UsageError, match="speech-core cannot run this") as error:
        speech_core.lay_out(build, ["kv-fp32"], tmp_path)
    assert "kv-fp32, whose caches" in error.value.found and "streaming-rnnt" in error.value.found


def test_a_card_sets_the_sizes_that_are_not_the_defaults():
    text = speech_core.usage(SimpleNamespace(spec=PROMPT, artifacts={"fp16": None}))
    assert "config.encoder_layers = 6;\n" in text and "config.decoder_hidden = 160;\n" in text and "left_context" not in text
    assert '"fp16/languages.json", config' in text
    sizes = speech_core.sizes(PROMPT)
    assert sizes["mel_frames"] == 32 and sizes["blank_id"] == sizes["vocab_size"] == 96 and sizes["num_prompts"] == 4
    assert speech_core.DEFAULTS.keys() <= sizes.keys()
    assert speech_core.languages(PROMPT) == {"numPrompts": 4, "autoSlot": 3, "promptDictionary": {"de": 1, "auto": 3}}
