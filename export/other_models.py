"""What models are that are not exported, by NeMo's class or by transformers' model type."""

from __future__ import annotations

_CHARACTERS = "of characters, without a SentencePiece tokenizer"
_TTS = "speech synthesis (TTS), which makes audio from text"
_SPEAKERS = "tells voices apart, and writes no text"
_ENHANCEMENT = "speech enhancement, which makes audio from audio"
_PRETRAINED = "an encoder trained without texts, which has no head that writes"
_SPEECH_LLM = "a language model with speech input"
_AED = "an encoder with an attention decoder (AED)"
_ACOUSTIC = "an encoder of waveforms with a CTC head, or without one"
_WORDS = "text to phonemes, without audio"

NEMO = {
    "EncDecMultiTaskModel": f"Canary: {_AED}, for recognition and translation",
    "EncDecMultiTalkerRNNTBPEModel": "a multitalker recogniser, which takes who speaks as a further input",
    "SortformerEncLabelModel": f"Sortformer: diarization, {_SPEAKERS}",
    "EncDecDiarLabelModel": f"MSDD: diarization, {_SPEAKERS}",
    "EncDecSpeakerLabelModel": f"a speaker model (TitaNet, ECAPA, SpeakerNet), which {_SPEAKERS}",
    "EncDecClassificationModel": "a classifier of audio (MarbleNet, MatchboxNet), which writes no text",
    "EncDecFrameClassificationModel": "a classifier of frames (voice activity), which writes no text",
    "EncDecRegressionModel": "a regression of audio, which writes no text",
    "EncDecCTCModel": f"a CTC recogniser {_CHARACTERS}",
    "EncDecRNNTModel": f"a transducer {_CHARACTERS}",
    "EncDecHybridRNNTCTCModel": f"a hybrid of transducer and CTC {_CHARACTERS}",
    "EncDecHybridRNNTCTCBPEModelWithPrompt": "a hybrid of transducer and CTC whose language prompt is of another structure",
    "EncDecDenoiseMaskedTokenPredModel": _PRETRAINED,
    "EncDecMaskedTokenPredModel": _PRETRAINED,
    "SpeechEncDecSelfSupervisedModel": _PRETRAINED,
    "SLUIntentSlotBPEModel": "a model of intents and slots",
    "SALM": f"SALM (Canary-Qwen): {_SPEECH_LLM}",
    "SALMAutomodel": f"SALM (Canary-Qwen): {_SPEECH_LLM}",
    **dict.fromkeys(("DuplexS2SModel", "DuplexS2SSpeechDecoderModel", "DuplexSTTModel"), f"a duplex model: {_SPEECH_LLM}"),
    **dict.fromkeys(("AlignerModel", "FastPitchModel", "Tacotron2Model", "MagpieTTSModel", "EasyMagpieTTSModel"), _TTS),
    **dict.fromkeys(("HifiGanModel", "UnivNetModel", "WaveGlowModel", "VitsModel", "RadTTSModel", "MixerTTSModel"), _TTS),
    **dict.fromkeys(("G2PModel", "CTCG2PModel", "T5G2PModel"), _WORDS),
    "AudioCodecModel": "a codec of audio",
    "EncMaskDecAudioToAudioModel": _ENHANCEMENT,
    "FlowMatchingAudioToAudioModel": _ENHANCEMENT,
    "PredictiveAudioToAudioModel": _ENHANCEMENT,
    "SchroedingerBridgeAudioToAudioModel": _ENHANCEMENT,
    "ScoreBasedGenerativeAudioToAudioModel": _ENHANCEMENT,
}
TRANSFORMERS = {
    "whisper": f"Whisper: {_AED}",
    "moonshine": f"Moonshine: {_AED}",
    "moonshine_streaming": f"Moonshine: {_AED}",
    "speech_to_text": _AED,
    "cohere_asr": _AED,
    **dict.fromkeys(("wav2vec2", "wav2vec2-bert", "wav2vec2-conformer", "hubert", "wavlm", "data2vec-audio"), _ACOUSTIC),
    **dict.fromkeys(("unispeech", "unispeech-sat", "sew", "sew-d"), _ACOUSTIC),
    "lasr_ctc": "a Conformer with CTC of another structure (LASR)",
    "parakeet_encoder": "the encoder of Parakeet, without a head that writes",
    "nemotron_asr_streaming_encoder": "the encoder of Nemotron, without a head that writes",
    **dict.fromkeys(("nemo_speechlm", "nemotron3_5_transcribe"), f"Nemotron 3.5 Transcribe: {_SPEECH_LLM}"),
    "nemotron3_diarization": f"diarization: it {_SPEAKERS}",
    **dict.fromkeys(("seamless_m4t", "seamless_m4t_v2"), "translation of speech and text"),
    **dict.fromkeys(("voxtral", "voxtral_realtime", "qwen2_audio", "qwen3_asr", "granite_speech", "glmasr"), _SPEECH_LLM),
    **dict.fromkeys(("kyutai_speech_to_text", "audioflamingo3", "vibevoice_asr", "fun_asr_nano"), _SPEECH_LLM),
    **dict.fromkeys(("vits", "speecht5", "bark", "csm", "dia", "fastspeech2_conformer"), _TTS),
    **dict.fromkeys(("encodec", "mimi", "dac"), "a codec of audio"),
}


def what_it_is(model: str) -> str:
    """Returns a description of a model that is not exported; "" for an unknown one. model: NeMo's class, or a model type."""
    return NEMO.get(model) or TRANSFORMERS.get(model, "")
