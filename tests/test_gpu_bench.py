"""What bench/gpu.sh carries to a GPU: code of one architecture, and graphs whose large weights are made anew there."""

import struct
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.append(str(Path(__file__).resolve().parent.parent / "bench"))

from gpu_full import fill
from gpu_pack import ARCHITECTURE, ENTRY, FATBIN, MAGIC, keep_architecture, put_build


def fatbin(*entries):
    """entries: (architecture, code)."""
    header = 64
    body = b""
    for architecture, code in entries:
        front = bytearray(header)
        ENTRY.pack_into(front, 0, 2, 1, header, len(code))
        struct.pack_into("<I", front, ARCHITECTURE, architecture)
        body += bytes(front) + code
    return FATBIN.pack(MAGIC, 1, FATBIN.size, len(body)) + body


def test_code_of_one_architecture_stays():
    first, second = fatbin((80, b"a" * 40), (90, b"b" * 24)), fatbin((90, b"c" * 8))
    library = bytearray(b"front" + first + b"between" + second + b"end")
    before = bytes(library)
    assert keep_architecture(library, 90) == 40
    assert bytes(library) == before.replace(b"a" * 40, bytes(40))


def test_large_weights_are_left_out_and_made_again(tmp_path):
    large = np.random.default_rng(0).normal(0, 1, (256, 128)).astype(np.float32)
    tensors = {
        "large": large,
        "half": large.astype(np.float16),
        "integers": np.ones((512, 256), np.int8),
        "index": np.arange(32768),  # as large, and no weight
        "small": np.arange(1024, dtype=np.float32),
    }
    source = tmp_path / "build"
    (source / "shared").mkdir(parents=True)
    (source / "fp32").mkdir()
    for path in (source / "config.json", source / "fp32" / "manifest.json"):
        path.write_text("{}")
    outputs = [helper.make_tensor_value_info("large", TensorProto.FLOAT, None)]
    graph = helper.make_graph([], "weights", [], outputs, [numpy_helper.from_array(a, name) for name, a in tensors.items()])
    for name in ("encoder_model.onnx", "decoder_model.onnx"):
        model = helper.make_model(graph)
        onnx.save(model, source / "fp32" / name, save_as_external_data=True, location=f"{name}.data", size_threshold=0)
    put_build(source, tmp_path / "full", ["fp32"], hollow=True)
    assert sum(p.stat().st_size for p in (tmp_path / "full" / "fp32").iterdir()) < 2 * (tensors["index"].nbytes + 16384)
    fill(tmp_path / "full")
    for name in ("encoder_model.onnx", "decoder_model.onnx"):
        made = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "full" / "fp32" / name).graph.initializer}
        for kept in ("index", "small"):
            np.testing.assert_array_equal(made[kept], tensors[kept])
        for again in ("large", "half"):
            assert not np.array_equal(made[again], tensors[again]) and 0.01 < made[again].astype(np.float32).std() < 0.03
        assert made["integers"].std() > 10
