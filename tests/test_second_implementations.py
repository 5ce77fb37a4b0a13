"""Two implementations that share no code with NeMo read the committed checkpoints: a text of theirs is NeMo's, or has its reason.

They live in an environment of their own, which `make peers` makes.
"""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers"
WORK = ROOT / "build" / "peers-gguf"


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(PEERS))


def read(path: Path) -> tuple[dict, dict]:
    """Metadata and tensors of a GGUF file, by the format's own description."""
    data, at = path.read_bytes(), 24
    version, n_tensors, n_values = struct.unpack_from("<4xIQQ", data)
    assert data[:4] == b"GGUF" and version == 3

    def number(form):
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(f"<{form}")
        return value

    def text():
        nonlocal at
        size = number("Q")
        at += size
        return data[at - size : at].decode()

    def value(kind):
        if kind == 9:
            inner = number("I")
            return [value(inner) for _ in range(number("Q"))]
        return text() if kind == 8 else number({4: "I", 5: "i", 6: "f", 7: "?"}[kind])

    metadata = {text(): value(number("I")) for _ in range(n_values)}
    places = []
    for _ in range(n_tensors):
        name, rank = text(), number("I")
        places.append((name, [number("Q") for _ in range(rank)][::-1], number("I"), number("Q")))
    start = -(-at // 32) * 32
    tensors = {}
    for name, shape, kind, offset in places:
        assert offset % 32 == 0
        if kind == 8:
            tensors[name] = kind, tuple(shape), data[start + offset :][: int(np.prod(shape)) // 32 * 34]
            continue
        flat = np.frombuffer(data, {0: np.float32, 1: np.float16}[kind], int(np.prod(shape)), start + offset)
        tensors[name] = flat.reshape(shape)
    return metadata, tensors


def test_a_file_holds_what_was_written(peers, tmp_path):
    import gguf_file

    metadata = {"a": "é", "b": 7, "c": gguf_file.Signed(-1), "d": 0.5, "e": True, "f": ["x", "yz"], "g": [1, -2], "h": []}
    tensors = {"one": np.arange(6, dtype=np.float32).reshape(2, 3), "half": np.ones((1, 5), np.float16)}
    data = bytes(range(68))
    blocks = gguf_file.Blocks(kind=8, shape=(2, 32), nbytes=len(data), data=lambda: data)
    gguf_file.write(tmp_path / "x.gguf", metadata, {"blocks": blocks, **tensors})
    found, read_tensors = read(tmp_path / "x.gguf")
    assert found == metadata
    assert read_tensors.pop("blocks") == (8, (2, 32), data)
    for name, tensor in tensors.items():
        assert read_tensors[name].dtype == tensor.dtype and np.array_equal(read_tensors[name], tensor)


@pytest.mark.parametrize(
    ("peer", "precision", "expected"),
    [
        ("transcribe-cpp", "q4_k_m", ("q4_k", "q8_0", "q8_0", "f16", None, "q8_0", None)),
        ("transcribe-cpp", "q8_0", ("q8_0", "q8_0", "q8_0", "f16", None, "q8_0", None)),
        ("crispasr", "q4_k", ("q4_k", "q4_k", "q4_0", "q8_0", None, None, None)),
        ("crispasr", "q8_0", ("q8_0", "q8_0", "q8_0", "q8_0", None, None, None)),
    ],
)
def test_each_quantizes_what_its_own_program_does(peers, peer, precision, expected):
    """A matrix, the one behind attention, one whose rows are no blocks of 256, a pointwise and a depthwise convolution, the
    decoder's recurrent weights, a norm."""
    import gguf_quantize

    rows = (256, 256, 640, 256, 9, 640, 256)
    names = {
        "transcribe-cpp": (
            "enc.blocks.0.ff1.linear1.weight",
            "enc.blocks.0.attn.linear_out.weight",
            "joint.out.weight",
            "enc.blocks.0.conv.pointwise1.weight",
            "enc.blocks.0.conv.depthwise.weight",
            "pred.lstm.0.Wx",
            "enc.blocks.0.norm_ff1.weight",
        ),
        "crispasr": (
            "encoder.layers.0.ff1.linear1.weight",
            "encoder.layers.0.attn.out.weight",
            "joint.out.weight",
            "encoder.layers.0.conv.pw1.weight",
            "encoder.layers.0.conv.dw.weight",
            "decoder.lstm.0.w_ih",
            "encoder.layers.0.norm_ff1.weight",
        ),
    }[peer]
    shapes = [(4, size) for size in rows]
    shapes[3], shapes[4], shapes[6] = (4, 256, 1), (4, 1, 9), (256,)

    class Names:
        """Names what would be rounded, for a quantizer."""

        def blocks(self, kind, tensor):
            return kind, tensor.shape

    tensors = {name: np.zeros(shape, np.float32) for name, shape in zip(names, shapes, strict=True)}
    made = gguf_quantize.quantized(peer, tensors, precision, Names())
    kinds = [t[0] if isinstance(t, tuple) else "f16" if t.dtype == np.float16 else None for t in made.values()]
    assert tuple(kinds) == expected
    assert made[names[3]] == ("q8_0", (4, 256)) if peer == "crispasr" else made[names[3]].shape == (4, 256, 1)


def test_the_library_of_a_peer_rounds(peers):
    """q8_0 by its own description: a scale in f16 and 32 values of 8 bits."""
    import environments
    import gguf_quantize

    if not environments.is_made("ggml"):
        pytest.skip("no environment with crispasr and transcribe-cpp: make peers makes it")
    values = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    blocks = gguf_quantize.Quantizer(gguf_quantize.library(environments.FOLDERS["ggml"])).blocks("q8_0", values)
    data = np.frombuffer(blocks.data(), [("scale", np.float16), ("values", np.int8, 32)])
    restored = (data["scale"][:, None].astype(np.float32) * data["values"]).reshape(values.shape)
    assert len(blocks.data()) == blocks.nbytes and np.abs(restored - values).max() < np.abs(values).max() / 200


@pytest.mark.parametrize("name", ["streaming-en", "offline-tdt", "streaming-multilingual"])
def test_every_weight_is_written_once(peers, name):
    """So that no peer runs on a model with a part left out: but for the filterbank and window, which transcribe.cpp computes."""
    import gguf_layouts

    from nemoport.export.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(str(ROOT / "reference" / "checkpoints" / f"{name}.nemo"))
    weights = {n: w for n, w in checkpoint.load_weights().items() if not n.endswith("num_batches_tracked")}
    total = sum(weight.numel() for weight in weights.values())
    spec = checkpoint.spec
    front_end = sum(w.numel() for n, w in weights.items() if n.startswith("preprocessor."))
    second_biases = spec.decoding.pred_layers * 4 * spec.decoding.pred_hidden  # of an LSTM; transcribe.cpp takes their sum
    zeros = spec.encoder.n_layers * spec.encoder.d_model  # biases that CrispASR wants to find
    for layout, expected in (("crispasr", total + zeros), ("transcribe-cpp", total - front_end - second_biases)):
        _, tensors = gguf_layouts.LAYOUTS[layout](checkpoint, half=False)
        assert sum(tensor.size for tensor in tensors.values()) == expected


@pytest.mark.slow
def test_every_other_text_has_its_reason(peers):
    import environments

    if not environments.is_made("ggml"):
        pytest.skip("no environment with crispasr and transcribe-cpp: make peers makes it")
    chosen = [word for name in ("streaming-en", "streaming-multilingual", "offline-tdt") for word in ("--run", name)]
    command = [sys.executable, PEERS / "gguf.py", "--work", WORK, "--every", "10", *chosen]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONSAFEPATH": ""})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("| streaming-en |") == 7 and done.stdout.count("| offline-tdt |") == 3
