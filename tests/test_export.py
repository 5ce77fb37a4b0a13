"""The exported graphs against NeMo's own modules, on random weights and geometries that the reference does not have."""

import json

import numpy as np
import onnx
import pytest

from nemoport.artifact import DECODER, ENCODER
from nemoport.cache_layout import KV, NEMO
from nemoport.errors import ArtifactError
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.onnx_graphs import export_graphs
from nemoport.graph_file import save_model
from nemoport.quantize.graph import layer_matmuls
from nemoport.reference.model import PRESETS, config, write_tokenizer
from nemoport.runtimes.onnxruntime.session import OnnxSession
from nemoport.spec import ModelSpec

VARIATIONS = {
    "published": {},
    "biases": {"use_bias": True},
    "multilingual contexts": {"att_context_size": [[56, 3], [56, 0], [56, 6], [56, 13]]},
}


@pytest.fixture(scope="module", params=VARIATIONS, ids=lambda name: name)
def tiny(request, tmp_path_factory):
    """(NeMo model restored afresh, our sessions by contract, spec, folder with a folder of graphs a contract)."""
    import torch
    from nemo.collections.asr.models import ASRModel, EncDecRNNTBPEModel
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
    folder = tmp_path_factory.mktemp("tiny")
    words = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prstvwxz"]
    settings = config(PRESETS["tiny"], write_tokenizer(words, 64, folder / "tokenizer"))
    settings.encoder.update(VARIATIONS[request.param])
    torch.manual_seed(1)
    model = EncDecRNNTBPEModel(settings)
    for name, weight in model.named_parameters():  # NeMo starts these at zero or one, which would hide mistakes
        if "pos_bias" in name or "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(weight.data, mean=float("norm" in name and name.endswith("weight")), std=0.2)
    layer = model.encoder.layers[0]  # the tracer keeps equal weights once; fresh norms are all alike
    layer.norm_conv.weight.data.copy_(layer.norm_feed_forward1.weight.data)
    model.decoder.prediction.embed.weight.data[-1] = 0
    path = folder / "tiny.nemo"
    model.save_to(str(path))
    checkpoint = read_checkpoint(path)
    sessions = {}
    for contract in (NEMO, KV):
        (folder / contract).mkdir()
        export_graphs(checkpoint, folder / contract, contract)
        sessions[contract] = OnnxSession(checkpoint.spec, folder / contract / ENCODER, folder / contract / DECODER, threads=1)
    model = ASRModel.restore_from(str(path), map_location="cpu").eval()
    return model, sessions, checkpoint.spec, folder


def nemo_steps(model, lookahead, windows):
    """windows: list of (mel [B, n_mels, T], lengths [B], drop) -> frames [B, T', d], lengths, caches after each."""
    import torch

    left = model.encoder.att_context_size_all[0][0]
    model.encoder.set_default_att_context_size([left, lookahead])
    caches = model.encoder.get_initial_cache_state(batch_size=len(windows[0][0]))
    with torch.inference_mode():
        for mel, lengths, drop in windows:
            frames, out_lengths, *caches = model.encoder.cache_aware_stream_step(
                processed_signal=torch.from_numpy(mel),
                processed_signal_length=torch.from_numpy(lengths),
                cache_last_channel=caches[0],
                cache_last_time=caches[1],
                cache_last_channel_len=caches[2],
                keep_all_outputs=True,
                drop_extra_pre_encoded=drop,
            )
            yield frames.transpose(1, 2).numpy(), out_lengths.numpy(), [c.numpy() for c in caches]


def windows(spec: ModelSpec, lookahead, count, rng, *, pad=False):
    """A first window, `count` later ones, and a last one of which only a part is valid, ragged over a batch of 3."""
    streaming = spec.streaming
    out = []
    for i in range(count + 2):
        first = i == 0 and not pad
        size = streaming.window_mel_frames(lookahead, first=first)
        mel = rng.normal(-8, 4, (3, spec.frontend.n_mels, size)).astype(np.float32)
        if i == 0 and pad:
            mel[:, :, :9] = 0
        lengths = np.full(3, size)
        if i == count + 1:
            lengths = np.array([size, size - 5, 11])
        out.append((mel, lengths, 0 if first else streaming.drop_enc_frames))
    return out


@pytest.mark.parametrize("contract", [NEMO, KV])
@pytest.mark.parametrize("pad", [False, True], ids=["exact first chunk", "nine zero frames first"])
@pytest.mark.parametrize("rank", range(4))
def test_encoder_equals_nemo_over_a_stream(tiny, rank, pad, contract):
    """Frames, lengths and caches, past the point where the cache is full; the batch is ragged at its end."""
    model, sessions, spec, _ = tiny
    session, lookahead = sessions[contract], spec.streaming.lookaheads[rank]
    state, worst = session.initial_state(3), 0.0
    steps = windows(spec, lookahead, 80 // (lookahead + 1), np.random.default_rng(rank), pad=pad)
    for (mel, lengths, _), (frames, out_lengths, caches) in zip(steps, nemo_steps(model, lookahead, steps), strict=True):
        ours, our_lengths, state = session.encode(mel, lengths, state)
        assert our_lengths.tolist() == out_lengths.tolist()
        assert state.length.tolist() == caches[2].tolist()
        for row, length in enumerate(out_lengths):
            worst = max(worst, np.abs(ours[row, :length] - frames[row, :length]).max())
        if contract == NEMO and (lengths == lengths[0]).all():  # behind a stream's end the caches hold what nobody reads
            worst = max(worst, np.abs(state.channel.swapaxes(0, 1) - caches[0]).max())
            worst = max(worst, np.abs(state.time.swapaxes(0, 1) - caches[1]).max())
    assert worst < 5e-5


def test_wrong_drop_would_show(tiny):
    """The comparison above sees a first chunk of the other convention."""
    model, sessions, spec, _ = tiny
    session, lookahead = sessions[NEMO], max(spec.streaming.lookaheads)
    mel, lengths, _ = windows(spec, lookahead, 0, np.random.default_rng(0))[0]
    ours, _, _ = session.encode(mel, lengths, session.initial_state(3))
    ((padded, _, _),) = nemo_steps(model, lookahead, [(np.pad(mel, ((0, 0), (0, 0), (9, 7))), lengths + 16, 2)])
    assert np.abs(ours - padded[:, : ours.shape[1]]).max() > 1e-2


def test_decoder_equals_nemo(tiny):
    """Raw logits; NeMo's own joint yields log-probabilities on a CPU."""
    import torch

    model, sessions, spec, _ = tiny
    session, rng = sessions[NEMO], np.random.default_rng(2)
    decoding = spec.decoding
    frames = rng.normal(size=(2, 5, spec.streaming.d_model)).astype(np.float32)
    state = (np.zeros(decoding.state_shape(2), np.float32),) * 2
    tokens = np.array([decoding.blank_id, 7], np.int32)
    their_state = tuple(torch.from_numpy(s) for s in state)
    for _ in range(3):
        logits, state = session.step(frames, tokens, state)
        with torch.inference_mode():
            labels = torch.from_numpy(tokens).long()[:, None]
            out, their_state = model.decoder.predict(labels, their_state, add_sos=False, batch_size=2)
            theirs = model.joint.joint(torch.from_numpy(frames), out)[:, :, 0].numpy()
        ours = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert np.abs(ours - theirs).max() < 1e-5
        assert np.abs(state[0] - their_state[0].numpy()).max() < 1e-5
        tokens = logits[:, 0, : decoding.blank_id].argmax(-1).astype(np.int32)


@pytest.mark.parametrize("contract", [NEMO, KV])
def test_graph_is_what_it_promises(tiny, contract):
    _, _, spec, folder = tiny
    folder = folder / contract
    model = onnx.load(folder / ENCODER)
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in [*model.graph.input, *model.graph.output]
    }
    names, streaming = [i.name for i in model.graph.input], spec.streaming
    layers, left, width, conv = streaming.n_layers, streaming.left_context_enc_frames, streaming.d_model, 8
    if contract == NEMO:
        assert names == ["audio_signal", "length", "cache_last_channel", "cache_last_time", "cache_last_channel_len"]
        assert shapes["cache_last_channel"] == shapes["cache_last_channel_next"] == ["batch", layers, left, width]
    else:
        of_each = ("key", "value", "conv")
        assert names[:2] == ["audio_signal", "length"] and names[-1] == "cache_len"
        assert names[2:-1] == [f"cache_{name}_{i}" for i in range(layers) for name in of_each]
        heads = [streaming.n_heads, width // streaming.n_heads]
        assert shapes["cache_key_0"] == shapes["cache_value_1"] == [left, "batch", *heads]
        assert shapes["key_new_0"] == shapes["value_new_1"] == ["enc_frames", "batch", *heads]
        assert shapes["cache_conv_1"] == [conv, "batch", width]
        assert shapes["conv_new_1"] == ["enc_frames", "batch", width]
    assert shapes["audio_signal"] == ["batch", 128, "mel_frames"]
    metadata = {p.key: p.value for p in model.metadata_props}
    assert ModelSpec.from_dict(json.loads(metadata["nemoport.spec"])) == spec
    files = {e.value for i in model.graph.initializer for e in i.external_data if e.key == "location"}
    assert files <= {f"{ENCODER}.data"}
    assert sorted(p.name for p in folder.glob("*.onnx*")) == sorted([ENCODER, f"{ENCODER}.data", DECODER, f"{DECODER}.data"])
    # MatMul-only quantizers must reach every linear layer, the pointwise convolutions too.
    linear = {node.input[1] for node in layer_matmuls(model)}
    assert len(linear) == 10 * layers
    assert {f"layers.0.conv.pointwise_conv{i}.weight" for i in (1, 2)} <= linear
    assert not [i.name for i in model.graph.initializer if "linear_pos" in i.name]
    norms = [n for n in model.graph.node if n.op_type == "LayerNormalization"]
    assert {i.name for i in model.graph.initializer} >= {name for n in norms for name in n.input[1:]}


@pytest.mark.parametrize("contract", [NEMO, KV])
def test_a_chunk_longer_than_any_lookahead_is_an_error(tiny, contract):
    """The position table ends there: an error, never other numbers."""
    _, sessions, spec, _ = tiny
    size = spec.streaming.window_mel_frames(max(spec.streaming.lookaheads), first=False) + 8
    with pytest.raises(Exception, match="(?i)shape|broadcast|dimension|invalid|out of range"):
        sessions[contract].encode(np.zeros((1, 128, size), np.float32), np.array([size]), sessions[contract].initial_state(1))


def test_a_damaged_sidecar_is_an_artifact_error(tiny, tmp_path):
    _, _, spec, folder = tiny
    for path in (folder / NEMO).glob("*.onnx*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = tmp_path / f"{ENCODER}.data"
    data.write_bytes(data.read_bytes()[:-4096])
    with pytest.raises(ArtifactError, match=r"encoder_model.onnx.data: \d+ bytes, \d+ needed"):
        OnnxSession(spec, tmp_path / ENCODER, tmp_path / DECODER)


def test_a_graph_of_small_tensors_is_saved_without_a_file_beside_it(tmp_path):
    from onnx import helper, numpy_helper

    info = helper.make_tensor_value_info("x", 1, [2])
    graph = helper.make_graph([], "g", [info], [info], [numpy_helper.from_array(np.ones(2, np.float32), "w")])
    save_model(helper.make_model(graph), tmp_path / "a.onnx", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
