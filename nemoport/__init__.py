"""nemoport: NeMo speech recognisers as proven packages of ONNX and other graphs. The Python API is `Recognizer`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemoport.recognizer import Recognizer
    from nemoport.transcription import Hypothesis

__version__ = "0.1.0"
__all__ = ["Hypothesis", "Recognizer"]


def __getattr__(name: str):
    if name in __all__:  # lazily, so that `nemoport --help` imports nothing
        from nemoport import recognizer

        return getattr(recognizer, name)
    raise AttributeError(f"module 'nemoport' has no attribute {name!r}")
