"""Runs where onnx-ir is: nbits.py GRAPH TARGET ALGORITHM BLOCK NODES.json FEEDS.npz COST.json.

Quantizes the MatMuls of NODES.json to 4 bits with one of onnxruntime's own algorithms.
"""

import json
import logging
import resource
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization import matmul_nbits_quantizer as nbits


class Feeds:
    """Warm chunks as `for feeds in ...`, which is how GPTQ reads its data."""

    def __init__(self, path):
        self.feeds = {}
        for key, array in np.load(path).items():
            index, name = key.split("/")
            self.feeds.setdefault(int(index), {})[name] = array

    def __iter__(self):
        return iter(self.feeds.values())


def algorithms(block, feeds):
    """Name -> (is_symmetric, configuration)."""
    return {
        "nearest, symmetric": (True, nbits.DefaultWeightOnlyQuantConfig(block, True, 4)),
        "nearest, asymmetric": (False, nbits.DefaultWeightOnlyQuantConfig(block, False, 4)),
        "k-quant": (False, nbits.KQuantWeightOnlyQuantConfig()),
        "HQQ": (False, nbits.HQQWeightOnlyQuantConfig(block)),
        "GPTQ": (False, nbits.GPTQWeightOnlyQuantConfig(Feeds(feeds), perchannel=True)),
        "GPTQ, mse": (False, nbits.GPTQWeightOnlyQuantConfig(Feeds(feeds), perchannel=True, mse=True)),
    }


def hide(model, wanted):
    """Puts an Identity behind the weights of all other MatMuls: not every algorithm heeds nodes_to_exclude."""
    nodes = []
    weights = {i.name for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.name not in wanted and node.input[1] in weights:
            hidden = f"{node.name}.hidden"
            nodes.append(helper.make_node("Identity", [node.input[1]], [hidden], f"{node.name}/hidden"))
            node.input[1] = hidden
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


graph, target, algorithm, block, wanted, feeds, cost = sys.argv[1:]
logging.disable(logging.INFO)
model = onnx.load(graph)
hide(model, set(json.loads(Path(wanted).read_text())))
symmetric, config = algorithms(int(block), feeds)[algorithm]
started = time.perf_counter()
quantizer = nbits.MatMulNBitsQuantizer(model, 4, int(block), symmetric, 4, algo_config=config)
quantizer.process()
seconds = time.perf_counter() - started
made = getattr(quantizer.model, "model", quantizer.model)
data = Path(target).name + ".data"
onnx.save(made, target, save_as_external_data=True, all_tensors_to_one_file=True, location=data, size_threshold=1024)
count = sum(n.op_type == "MatMulNBits" for n in made.graph.node)
peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
Path(cost).write_text(json.dumps({"seconds": seconds, "peak_mib": peak_mib, "products": count}))
