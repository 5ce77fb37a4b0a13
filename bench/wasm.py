"""Variants, and single products by bits, in the WebAssembly of onnxruntime-web, in Node: processor time, one thread.

    python bench/wasm.py products [--npm build/consumers/node]
    python bench/wasm.py variants --build BUILD [--variant kv-int8-dynamic] [--clips 4]

`products`: rows of frames by a matrix of 1024 x 4096, for chunks of 80 and 560 ms (1 and 7 rows), in the forms that our graphs
have and in 2 bits, which onnxruntime has as MatMulNBits; beside the same in this machine's onnxruntime. `variants`: whole
recognisers, from samples to tokens, ours in onnxruntime beside the modules of our page in Node. bench/web.py has the same in
Chromium.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import node_programs
import numpy as np
from consumer_runs import Case, nemoport
from consumers import other, spread

from nemoport.artifact import Artifact
from nemoport.quantize.blocks import round_nearest, store
from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import read_corpus
from nemoport.variant import instruction_set

AUDIO = Path(__file__).resolve().parent.parent / "reference" / "audio"
INPUTS, OUTPUTS, BLOCK = 1024, 4096, 128
WARM = 8  # passes of the first clip: V8 compiles the WebAssembly that is hot a second time
NBITS = ((8, 4), (4, 4), (2, 4), (2, 0))  # bits, accuracy level: 4 multiplies in integers, 0 as onnxruntime likes


def graph(node: list, initializers: dict[str, np.ndarray], kind: int, opset: int = 21):
    """An onnx.ModelProto of x [rows, INPUTS] -> y."""
    from onnx import TensorProto, helper, numpy_helper

    made = helper.make_graph(
        node,
        "product",
        [helper.make_tensor_value_info("x", kind, ["rows", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.INT32 if kind == TensorProto.UINT8 else TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def products() -> Iterator[tuple[str, str, object]]:
    """(name, type of x, graph)."""
    from onnx import TensorProto, helper

    weight = np.random.default_rng(0).normal(0, 0.02, (INPUTS, OUTPUTS)).astype(np.float32)
    multiply = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    yield "fp32", "float32", graph([multiply], {"w": weight}, TensorProto.FLOAT)
    integers = np.clip(np.round(weight * 800), -64, 64).astype(np.int8)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    yield "INT8, MatMulInteger", "uint8", graph([node], {"w": integers}, TensorProto.UINT8)
    for bits in (8, 4):
        model = graph([helper.make_node("MatMul", ["x", "w"], ["y"], "product")], {"w": weight}, TensorProto.FLOAT)
        store(model, {"product": (round_nearest(weight, bits, BLOCK), bits)})
        yield f"{bits} bits in blocks, as our weight-only variants", "float32", model
    for bits, level in NBITS:
        shape = (OUTPUTS, INPUTS // BLOCK, BLOCK * bits // 8)
        packed = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
        scales = np.full((OUTPUTS, INPUTS // BLOCK), 1e-3, np.float32)
        sizes = {"K": INPUTS, "N": OUTPUTS, "bits": bits, "block_size": BLOCK, "accuracy_level": level}
        node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **sizes)
        yield (
            f"MatMulNBits, {bits} bits, accuracy level {level}",
            "float32",
            graph([node], {"w": packed, "s": scales}, TensorProto.FLOAT),
        )


def native(path: Path, kind: str, rows: int, rounds: int, repeats: int) -> list[float]:
    """Microseconds of processor time a run in this machine's onnxruntime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x, times = np.ones((rows, INPUTS), kind), []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        for _ in range(repeats):
            session.run(None, {"x": x})
        times.append(1e6 * (resource.getrusage(resource.RUSAGE_SELF).ru_utime - before) / repeats)
    return times


def print_products(npm: Path, rounds: int, repeats: int) -> None:
    rows = (1, 7)
    print(
        "| product | " + " | ".join(f"{n} row{'s' * (n > 1)}, {where}, us" for n in rows for where in ("WASM", "native")) + " |"
    )
    print("|---|" + "---|" * 2 * len(rows))
    with tempfile.TemporaryDirectory() as scratch:
        jobs, kinds = [], {}
        for number, (name, kind, model) in enumerate(products()):
            path = Path(scratch) / f"{number}.onnx"
            path.write_bytes(model.SerializeToString())
            kinds[name] = (path, kind)
            for n in rows:
                jobs.append(
                    {"name": f"{name}/{n}", "file": str(path), "feeds": [{"name": "x", "type": kind, "dims": [n, INPUTS]}]}
                )
        job = Path(scratch) / "job.json"
        job.write_text(json.dumps({"graphs": jobs, "rounds": rounds, "repeats": repeats, "threads": 1}))
        command = ["node", str(npm / "products.mjs"), str(job)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for name, (path, kind) in kinds.items():
            cells = [
                f"{statistics.median(times):.0f}"
                for n in rows
                for times in (found[f"{name}/{n}"], native(path, kind, n, rounds, repeats))
            ]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def print_variants(npm: Path, build: Path, variants: list[str], count: int) -> None:
    found = sorted(path.parent.name for path in build.glob("*/encoder_model.onnx") if "smoothed" not in path.parent.name)
    print("| variant | MB | native: audio s a processor s | WASM in Node | of native | tokens other |\n|---|---|---|---|---|---|")
    for variant in variants or found:
        artifact = Artifact.open(build / variant)
        every = read_corpus(AUDIO / ("eval.jsonl" if artifact.spec.streaming else "eval-tdt.jsonl"), 16000).utterances
        utterances = spread(every, count)
        with tempfile.TemporaryDirectory() as scratch:
            clips = node_programs.write_clips(Recognizer.open(artifact.folder, threads=1), utterances, Path(scratch))
            ours = nemoport(Case(build, variant, utterances, Path(scratch), clips, npm.parent))
            job = {"package": "onnxruntime-web", "folder": str(build.resolve()), "variant": variant, "ownMel": True, "warm": WARM}
            theirs = node_programs.run(npm, "graphs", clips, asr=str(node_programs.PAGE_MODULES), **job)
        seconds = sum(len(utterance.samples()) for utterance in utterances) / 16000
        size = sum(path.stat().st_size for path in artifact.folder.iterdir()) / 1e6
        speeds = [f"{seconds / one.seconds:.2f}" for one in (ours, theirs)]
        cells = [variant, f"{size:.1f}", *speeds, f"{ours.seconds / theirs.seconds:.2f}", other(ours, theirs)]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("products", "variants"))
    parser.add_argument("--npm", type=Path, default=Path("build/consumers/node"), help="the folder of npm packages")
    parser.add_argument("--build", type=Path)
    parser.add_argument("--variant", action="append", help="repeat for several; default: all of the build")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    npm = node_programs.environment(options.npm)
    print(f"{instruction_set()}, one thread\n")
    if options.what == "products":
        print_products(npm, options.rounds, options.repeats)
    else:
        print_variants(npm, options.build, options.variant, options.clips)


if __name__ == "__main__":
    main()
