"""Writes a checkpoint as transformers' own converters do: config, weights, tokenizer and processor of its classes."""

from __future__ import annotations

from pathlib import Path

import hf_oracle


def save(checkpoint, folder: Path, **options) -> Path:
    """Writes a checkpoint into a new folder, which it returns. options: of `save_pretrained`, such as max_shard_size."""
    streaming = checkpoint.spec.streaming is not None
    model = hf_oracle.from_checkpoint(checkpoint) if streaming else hf_oracle.parakeet_from_checkpoint(checkpoint)
    if checkpoint.spec.head != "ctc":
        model.generation_config.decoder_start_token_id = blank = checkpoint.spec.decoding.blank_id
        model.generation_config.suppress_tokens = [blank + 1 + i for i in range(len(checkpoint.spec.decoding.durations))] or None
    model.save_pretrained(folder, **options)
    _processor(checkpoint, folder).save_pretrained(folder)
    return folder


def _processor(checkpoint, folder: Path):
    import transformers

    spec, tokenizer = checkpoint.spec, _tokenizer(checkpoint, folder)
    if spec.streaming is None:
        extractor = transformers.ParakeetFeatureExtractor(feature_size=spec.frontend.n_mels)
        return transformers.ParakeetProcessor(feature_extractor=extractor, tokenizer=tokenizer, decoder_type=spec.head)
    extractor = transformers.NemotronAsrStreamingFeatureExtractor(feature_size=spec.frontend.n_mels)
    rights = list(spec.streaming.lookaheads)
    lookaheads = dict(supported_num_lookahead_tokens=rights, default_num_lookahead_tokens=rights[0])
    if spec.prompt is None:
        return transformers.NemotronAsrStreamingProcessor(extractor, tokenizer, **lookaheads)
    prompt = dict(prompt_dictionary=dict(spec.prompt.languages), num_prompts=spec.prompt.slots)
    return transformers.Nemotron3_5AsrProcessor(extractor, tokenizer, **lookaheads, **prompt)


def _tokenizer(checkpoint, folder: Path):
    """With <unk> and <pad>, where they are absent, and <blank> behind all, but for CTC, whose <pad> is the blank."""
    from tokenizers import AddedToken
    from transformers import ParakeetTokenizer
    from transformers.convert_slow_tokenizer import ParakeetConverter

    (path := folder / "sentencepiece.tmp").write_bytes(checkpoint.tokenizer)
    found = ParakeetTokenizer(tokenizer_object=ParakeetConverter(str(path)).converted(), clean_up_tokenization_spaces=False)
    path.unlink()

    def token(text: str) -> AddedToken:
        return AddedToken(text, normalized=False, special=True)

    rnnt = checkpoint.spec.kind == "offline-rnnt"  # its blank is the padding too
    for text in ("<unk>",) if rnnt else ("<unk>", "<pad>"):
        if found.convert_tokens_to_ids(text) is None:
            found.add_tokens([token(text)])
    if checkpoint.spec.head != "ctc":
        found.add_tokens([token("<blank>")])
    found.add_special_tokens({"pad_token": token("<blank>" if rnnt else "<pad>"), "unk_token": token("<unk>")})
    if checkpoint.spec.prompt is not None:
        tags = [token(text) for text in checkpoint.tokens if text.startswith("<") and "-" in text]
        found.add_special_tokens({"additional_special_tokens": tags})
    return found
