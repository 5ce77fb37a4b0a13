"""Runs in the peer's environment: smoother.py GRAPH TARGET FEEDS.npz SETTINGS COST.json."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.algorithms.smoother import core


class Reader(data_reader.CalibrationDataReader):
    def __init__(self, path):
        self.feeds = {}
        for key, array in np.load(path).items():
            index, name = key.split("/")
            self.feeds.setdefault(int(index), {})[name] = array
        self.rewind()

    def get_next(self):
        return next(self.waiting, None)

    def rewind(self):
        self.waiting = iter(self.feeds.values())


graph, target, feeds, settings, cost = sys.argv[1:]
started = time.perf_counter()
model = core.Smoother(graph, Reader(feeds)).transform(op_types=["MatMul"], **json.loads(settings))
seconds = time.perf_counter() - started
data = Path(target).name + ".data"
onnx.save(model, target, save_as_external_data=True, all_tensors_to_one_file=True, location=data, size_threshold=1024)
peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
Path(cost).write_text(json.dumps({"seconds": seconds, "peak_mib": peak_mib}))
