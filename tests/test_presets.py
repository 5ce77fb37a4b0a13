"""The presets: what is published of each model, and a tiny model of every structure that NeMo restores and that hears."""

from __future__ import annotations

import json

import pytest

# kinds.md's table as a test: layers, width, mel bands, biases, scaled input, LSTM layers, tokens, NeMo's class.
PUBLISHED = {
    "parakeet-ctc-0.6b": (24, 1024, 80, True, True, None, 1024, "EncDecCTCModelBPE"),
    "parakeet-ctc-1.1b": (42, 1024, 80, True, True, None, 1024, "EncDecCTCModelBPE"),
    "parakeet-rnnt-0.6b": (24, 1024, 80, True, True, 2, 1024, "EncDecRNNTBPEModel"),
    "parakeet-rnnt-1.1b": (42, 1024, 80, True, True, 2, 1024, "EncDecRNNTBPEModel"),
    "parakeet-tdt-1.1b": (42, 1024, 80, True, False, 2, 1024, "EncDecRNNTBPEModel"),
    "parakeet-tdt_ctc-1.1b": (42, 1024, 80, True, False, 2, 1024, "EncDecHybridRNNTCTCBPEModel"),
    "parakeet-tdt_ctc-110m": (17, 512, 80, True, False, 1, 1024, "EncDecHybridRNNTCTCBPEModel"),
    "parakeet-tdt_ctc-0.6b-ja": (24, 1024, 80, True, True, 2, 3072, "EncDecHybridRNNTCTCBPEModel"),
    "parakeet-unified-en-0.6b": (24, 1024, 128, True, True, 2, 1024, "EncDecRNNTBPEModel"),
    "parakeet_realtime_eou_120m-v1": (17, 512, 128, True, False, 1, 1026, "EncDecRNNTBPEModel"),
    "stt_en_fastconformer_hybrid_large_streaming_multi": (17, 512, 80, True, True, 1, 1024, "EncDecHybridRNNTCTCBPEModel"),
}
STRUCTURES = ("tiny-ctc", "tiny-streaming-ctc", "tiny-rnnt", "tiny-tdt_ctc", "tiny-tdt_ctc-local", "tiny-unified", "tiny-eou")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_sizes(name, tmp_path):
    pytest.importorskip("nemo.collections.asr")
    from nemoport.reference import model, presets, random_checkpoint

    size = presets.PRESETS[name]
    found = model.config(size, tmp_path)
    encoder, layers = found.encoder, found.decoder.get("prednet", {}).get("pred_rnn_layers")
    sizes = (encoder.n_layers, encoder.d_model, found.preprocessor.features, encoder.use_bias, encoder.xscaling)
    assert (*sizes, layers, size.vocabulary, model.nemo_class(size).__name__) == PUBLISHED[name]
    assert encoder.feat_in == found.preprocessor.features and name in random_checkpoint.PARAMETERS
    assert (encoder.self_attention_model == "rel_pos_local_attn") == (name == "parakeet-tdt_ctc-1.1b")


@pytest.mark.parametrize("preset", STRUCTURES)
def test_a_tiny_model_of_each_structure_hears(random_checkpoint, preset):
    torch = pytest.importorskip("torch")
    from nemoport.reference import model, presets, prompt
    from nemoport.reference import random_checkpoint as made_up

    path = random_checkpoint(preset)
    asr, size = model.restore(path), presets.PRESETS[preset]
    parameters, rate = json.loads(path.with_name("made.json").read_text())
    assert type(asr).__name__ == model.nemo_class(size).__name__
    assert parameters == sum(parameter.numel() for parameter in asr.parameters()) and 1.0 < rate < 6.0
    assert len(asr.tokenizer.vocab) == size.vocabulary and asr.preprocessor.featurizer.nfilt == size.n_mels
    audio = torch.from_numpy(made_up.pseudo_speech_batch(7))
    with torch.no_grad():
        frames, n_frames = prompt.encode(asr, audio, torch.full((6,), audio.shape[1]))
        found = []
        if size.decoders != "ctc":
            found.append(asr.decoding.rnnt_decoder_predictions_tensor(frames, n_frames, return_hypotheses=True))
        if size.decoders != "transducer":
            head, decoding = (asr.ctc_decoder, asr.ctc_decoding) if size.decoders == "hybrid" else (asr.decoder, asr.decoding)
            found.append(decoding.ctc_decoder_predictions_tensor(head(encoder_output=frames), n_frames, return_hypotheses=True))
    for hypotheses in found:
        texts = [hypothesis.text for hypothesis in hypotheses]
        assert len(set(texts)) >= 5  # no two clips alike, one of them perhaps silent
        assert 8 < sum(map(len, texts)) / len(texts) < 150


def test_appended_tokens_are_the_last_and_one_token_each(random_checkpoint):
    from nemoport.reference import model, presets

    size = presets.PRESETS["tiny-eou"]
    tokenizer = model.restore(random_checkpoint("tiny-eou")).tokenizer
    assert tokenizer.text_to_ids("so it is<EOU>")[-1] == size.vocabulary - 2
    assert [tokenizer.ids_to_text([size.vocabulary - 2 + i]) for i in (0, 1)] == list(presets.END_OF_UTTERANCE)
