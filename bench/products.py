"""One product with a constant weight in each form that onnxruntime has, in microseconds of processor time, on two onnxruntimes.

    python bench/products.py [--rows 1 2 7 14 56] [--rounds 30]

Ours, the newest of peers/environments.py (`make peers`) and their ratio, each in a process of its own, in turn. The weight is one
of a layer of 1024 channels, 1024 x 4096: f32, u8 times s8 (MatMulInteger), and MatMulNBits of 8, 4 and 2 bits in blocks of 128 by
integers (accuracy_level 4). More weights than the caches hold are read one after the other, as a model's are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent / "peers"))
import environments  # noqa: E402

INPUTS, OUTPUTS, BLOCK, COPIES = 1024, 4096, 128, 24
FORMS = ("f32", "integers", "8 bits", "4 bits", "2 bits")
RUNTIMES = {"1.31": None, "1.32": "onnxruntime-1.32"}


def session_of(form: str):
    """COPIES products, each of the input, added up."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, weights = np.random.default_rng(0), [], []
    for i in range(COPIES):
        bits = int(form[0]) if form.endswith("bits") else 0
        if bits:
            packed = rng.integers(0, 256, (OUTPUTS, INPUTS // BLOCK, BLOCK * bits // 8), np.uint8)
            weights += [numpy_helper.from_array(packed, f"w{i}")]
            weights += [numpy_helper.from_array(rng.random(OUTPUTS * INPUTS // BLOCK, np.float32), f"s{i}")]
            settings = dict(K=INPUTS, N=OUTPUTS, bits=bits, block_size=BLOCK, accuracy_level=4, domain="com.microsoft")
            nodes.append(helper.make_node("MatMulNBits", ["x", f"w{i}", f"s{i}"], [f"y{i}"], **settings))
        elif form == "integers":
            weights.append(numpy_helper.from_array(rng.integers(-127, 127, (INPUTS, OUTPUTS), np.int8), f"w{i}"))
            nodes.append(helper.make_node("MatMulInteger", ["q", f"w{i}"], [f"y{i}"]))
        else:
            weights.append(numpy_helper.from_array(rng.random((INPUTS, OUTPUTS), np.float32), f"w{i}"))
            nodes.append(helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"]))
        nodes.append(helper.make_node("ReduceMax", [f"y{i}"], [f"m{i}"], keepdims=0))
    nodes.append(helper.make_node("Sum" if form != "integers" else "Max", [f"m{i}" for i in range(COPIES)], ["m"]))
    name, kind = ("q", TensorProto.UINT8) if form == "integers" else ("x", TensorProto.FLOAT)
    out = TensorProto.INT32 if form == "integers" else TensorProto.FLOAT
    given = [helper.make_tensor_value_info(name, kind, ["rows", INPUTS])]
    graph = helper.make_graph(nodes, "products", given, [helper.make_tensor_value_info("m", out, [])], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return name, ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def work() -> None:
    """Answers an order a line, [form, rows], with the microseconds of one product."""
    opened = {}
    for line in sys.stdin:
        form, rows = json.loads(line)
        if form not in opened:
            opened = {form: session_of(form)}
        name, session = opened[form]
        x = np.random.default_rng(1).normal(size=(rows, INPUTS)).astype(np.float32)
        feeds = {name: np.abs(x * 50).astype(np.uint8) if name == "q" else x}
        session.run(None, feeds)
        began = time.process_time()
        session.run(None, feeds)
        print(json.dumps(1e6 * (time.process_time() - began) / COPIES), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 7, 14, 56])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--work", action="store_true", help="be one of the processes")
    options = parser.parse_args()
    if options.work:
        return work()
    workers = {}
    for runtime, environment in RUNTIMES.items():
        path = [str(environments.FOLDERS[environment])] if environment else []
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, __file__, "--work"]
        workers[runtime] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)
    print(f"| weight | {' | '.join(f'{rows} rows' for rows in options.rows)} |")
    print("|---" * (len(options.rows) + 1) + "|")
    for form in FORMS:
        cells = []
        for rows in options.rows:
            found = {runtime: [] for runtime in workers}
            for _ in range(options.rounds):
                for runtime, worker in workers.items():
                    print(json.dumps([form, rows]), file=worker.stdin, flush=True)
                    found[runtime].append(json.loads(worker.stdout.readline()))
            old, new = found.values()
            ratio = statistics.median(n / o for o, n in zip(old, new, strict=True))
            cells.append(f"{', '.join(f'{statistics.median(times):.0f}' for times in found.values())}, {ratio:.2f}")
        print(f"| {form} | {' | '.join(cells)} |", flush=True)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()


if __name__ == "__main__":
    main()
