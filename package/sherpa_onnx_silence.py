"""Silence that sherpa-onnx needs before and after its audio, so that its frames stand where NeMo has them and none is lost."""

from __future__ import annotations

from nemoport.config import RuntimeConfig, SherpaOnnxSection, streaming_encoder
from nemoport.spec import CTC, FrontendSpec, ModelSpec, StreamingSpec

VERSION = "2.0.1"  # of sherpa-onnx, the one that the tests run


def sherpa_onnx_section(config: RuntimeConfig) -> SherpaOnnxSection:
    """Returns the section of config.json on the silence before and after the audio, and on sherpa-onnx's front end."""
    spec = ModelSpec.from_dict(config["spec"])
    if spec.streaming is None:
        return _offline_ctc(spec) if spec.head == CTC else _offline(spec.frontend)
    return _streaming(spec.streaming, spec.frontend, streaming_encoder(config)["default_lookahead"])


def _streaming(streaming: StreamingSpec, frontend: FrontendSpec, lookahead: int) -> SherpaOnnxSection:
    """Silence for a stream before and after its audio. sherpa-onnx centres frame i at hop * (i + 1/2), NeMo at hop * i."""
    hop = frontend.hop_samples
    dropped = streaming.drop_enc_frames * streaming.subsampling_factor
    return {
        "version": VERSION,
        "lookahead": lookahead,
        "chunk_ms": streaming.chunk_ms(lookahead, frontend),
        "lead_samples": dropped * hop + hop // 2,
        "lead_rule": (
            f"sherpa-onnx drops the first {dropped} mel frames of a stream, words and all, and centres its frames half a hop "
            "behind NeMo's; with it chunks and frames stand where NeMo has them"
        ),
        "tail_samples": (2 * streaming.chunk_mel_frames(lookahead, first=False) + 1) * hop,
        "tail_rule": (
            "sherpa-onnx runs full windows only, so without it the last words are lost. Two chunks and a frame: what is left, "
            "and a chunk for what the model says late"
        ),
    }


def _offline(frontend: FrontendSpec) -> SherpaOnnxSection:
    return {
        "version": VERSION,
        "lead_samples": frontend.hop_samples // 2,
        "lead_rule": "sherpa-onnx centres its frames half a hop behind NeMo's; with it they stand where NeMo has them",
        "front_end_rule": (
            "sherpa-onnx gives offline NeMo transducers a Povey window and mel bands that end 400 Hz below NeMo's, where NeMo "
            "has a Hann window and bands up to half the rate; its transcripts differ from NeMo's by that, and no option "
            "of its Python API changes the window"
        ),
    }


def _offline_ctc(spec: ModelSpec) -> SherpaOnnxSection:
    factor, hop = spec.encoder.subsampling_factor, spec.frontend.hop_samples
    return {
        "version": VERSION,
        "lead_samples": hop // 2,
        "lead_rule": "sherpa-onnx centres its frames half a hop behind NeMo's; with it they stand where NeMo has them",
        "tail_samples": factor * hop,
        "tail_rule": f"sherpa-onnx decodes one encoder frame for {factor} whole mel frames, so without it the last is lost",
        "front_end_rule": "sherpa-onnx gives models of NeMo a front end of its own, whose mel values differ from NeMo's",
    }
