"""What the programs that load such packages expect of them, from their own code and documents as of November 2026."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nemoport.errors import UsageError

BATCH_FIRST, LAYER_FIRST = "batch first", "layer first"
FUSED, SPLIT = "fused", "split"
USUAL_GUARD = 2.0**-24


@dataclass(frozen=True)
class Consumer:
    """A program. name: that of its layout, where there is one. streaming: whether it runs streaming models (True), offline ones
    (False), or both (None); caches: their order; integers: NeMo's name of an input -> its type; decoder: fused or split; blank:
    whether the vocabulary has to end with <blk>; metadata: keys that it reads of a streaming encoder's metadata; normalisation:
    what its front end computes, of streaming and of offline models, "" for none that it knows; floats: types of float inputs and
    outputs; lacks: operators; time_major: of the features, of streaming and of offline models; behaviour: a check -> what the
    program itself does, whatever the package."""

    name: str
    title: str
    source: str
    streaming: bool | None = None
    caches: str = ""
    integers: Mapping[str, str] = field(default_factory=dict)
    decoder: str = ""
    blank: bool = False
    metadata: tuple[str, ...] = ()
    normalisation: tuple[str, str] = ("", "")
    floats: tuple[str, ...] = ("float32",)
    lacks: tuple[str, ...] = ()
    time_major: tuple[bool | None, bool | None] = (None, None)
    behaviour: Mapping[str, str] = field(default_factory=dict)


_CACHE_DIMS = tuple(f"cache_last_{which}_dim{i}" for which in ("channel", "time") for i in (1, 2, 3))
_ZEROS = "feeds nine zero frames before the first chunk, so that every frame of a stream differs from NeMo's"
_INTEGER_OPERATORS = ("MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat")

CONSUMERS = {
    one.name: one
    for one in (
        Consumer(
            "sherpa-onnx",
            "sherpa-onnx, NeMo transducers",
            "https://github.com/k2-fsa/sherpa-onnx",
            caches=BATCH_FIRST,
            integers={"length": "int64", "targets": "int32", "cache_last_channel_len": "int64", "prompt_index": "int64"},
            decoder=SPLIT,
            blank=True,
            metadata=("vocab_size", "window_size", "chunk_shift", "subsampling_factor", "normalize_type", *_CACHE_DIMS),
            normalisation=("NA", "per_feature"),
            time_major=(False, False),
            behaviour={
                "first-chunk": "takes the first window for a later one and drops two frames: feed 160 ms of silence first",
                "tail": "never encodes what fills no window: feed a window of silence behind the audio",
            },
        ),
        Consumer(
            "onnx-asr",
            "onnx-asr",
            "https://github.com/istupakov/onnx-asr",
            streaming=False,
            integers={"length": "int64", "targets": "int32"},
            decoder=FUSED,
            blank=True,
            normalisation=("", "per_feature"),
            time_major=(False, False),
        ),
        Consumer(
            "genai",
            "onnxruntime-genai, nemotron_speech and parakeet_tdt",
            "https://github.com/microsoft/onnxruntime-genai",
            caches=BATCH_FIRST,
            integers={"length": "int64", "targets": "int64", "cache_last_channel_len": "int64", "prompt_index": "int64"},
            decoder=SPLIT,
            normalisation=("NA", "per_feature"),
            floats=("float32", "float16"),
            time_major=(True, False),
            behaviour={
                "first-chunk": _ZEROS,
                "last-row": "computes the last row of each chunk from 40 samples fewer",
            },
        ),
        Consumer(
            "parakeet-rs",
            "parakeet-rs and voxtype",
            "https://github.com/altunenes/parakeet-rs",
            caches=LAYER_FIRST,
            integers={"length": "int64", "targets": "int32", "cache_last_channel_len": "int64", "prompt_index": "int64"},
            decoder=FUSED,
            normalisation=("NA", "per_feature"),
            time_major=(False, False),
            behaviour={"first-chunk": _ZEROS, "tail": "never flushes: feed a chunk of silence behind the audio"},
        ),
        Consumer(
            "speech-core",
            "soniqo speech-core",
            "https://github.com/soniqo/speech-core",
            streaming=True,
            caches=LAYER_FIRST,
            integers={"length": "int32", "targets": "int64", "cache_last_channel_len": "int32"},
            decoder=SPLIT,
            normalisation=("NA", ""),
        ),
        Consumer(
            "parakeet-js",
            "parakeet.js and parakeet_web",
            "https://github.com/ysdede/parakeet.js",
            streaming=False,
            integers={"length": "int64", "targets": "int32"},
            decoder=FUSED,
            blank=True,
            normalisation=("", "per_feature"),
            time_major=(False, False),
        ),
        Consumer(
            "transformers-js",
            "transformers.js, parakeet_ctc",
            "https://github.com/huggingface/transformers.js",
            streaming=False,
            integers={"attention_mask": "int64"},
            normalisation=("", "per_feature"),
            time_major=(None, True),
        ),
        Consumer(
            "cuda",
            "onnxruntime's CUDA provider",
            "https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html",
            floats=("float32", "float16"),
            lacks=_INTEGER_OPERATORS,
        ),
        Consumer(
            "tensorrt",
            "TensorRT",
            "https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/support-matrix.html",
            floats=("float32", "float16"),
            lacks=(*_INTEGER_OPERATORS, "DynamicQuantizeLinear", "MatMulNBits"),
        ),
    )
}


def consumer(name: str) -> Consumer:
    """Returns a consumer by its name. Raises UsageError."""
    if name not in CONSUMERS:
        raise UsageError(f"Unknown consumer {name!r}.", expected=f"one of {', '.join(CONSUMERS)}", found=name)
    return CONSUMERS[name]
