"""nemoport: NeMo streaming speech recognisers as proven ONNX packages."""

__version__ = "0.1.0"


def __getattr__(name: str):
    if name in ("Recognizer", "Hypothesis"):  # lazily, so that `nemoport --help` imports nothing
        from nemoport import recognizer

        return getattr(recognizer, name)
    raise AttributeError(f"module 'nemoport' has no attribute {name!r}")
