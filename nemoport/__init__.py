"""nemoport: NeMo streaming speech recognisers as proven ONNX packages."""

__version__ = "0.1.0"
