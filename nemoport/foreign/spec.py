"""The spec of a stranger's model, from its graphs' shapes and its settings."""

from __future__ import annotations

from nemoport.errors import ArtifactError
from nemoport.foreign.folder import ForeignFolder, ForeignModel
from nemoport.foreign.ports import CHANNEL, FRAMES, MASK, PRE_CACHE, PROMPT, SIGNAL, TIME
from nemoport.prompt import PromptSpec
from nemoport.spec import CTC, DecodingSpec, FrontendSpec, ModelSpec, OfflineSpec, StreamingSpec

SUBSAMPLING, PRE_ENCODE_CACHE = 8, 9  # of every published model
LOOKAHEADS = (13, 6, 3, 1, 0)
DURATIONS = (0, 1, 2, 3, 4)  # of every published TDT
SLOTS = 128  # of the published prompt
USUAL_GUARD = 2.0**-24
LEFT, LEFT_MULTILINGUAL, MULTILINGUAL_TOKENS, KERNEL = 70, 56, 13087, 9


def spec_of(model: ForeignModel, folder: ForeignFolder) -> ModelSpec:
    """Returns the folder's own spec where nemoport wrote it, else one with what the graphs state, and NeMo's usual front end.
    Raises ArtifactError where they do not state a size that is needed."""
    if folder.settings.spec:
        return folder.settings.spec
    decoding, head = _decoding(model, folder)
    inputs = model.encoder.ports.inputs
    frontend = _frontend(model, folder)
    prompt = PromptSpec(SLOTS, {"auto": 0}) if PROMPT in inputs or MASK in inputs else None
    if CHANNEL in inputs:
        return ModelSpec(f"streaming-{head}", frontend, decoding, streaming=_streaming(model, folder), prompt=prompt)
    width = (
        _known(model.encoder.ports.outputs[FRAMES].shape[1], "width") if FRAMES in model.encoder.ports.outputs else SUBSAMPLING
    )
    return ModelSpec(f"offline-{head}", frontend, decoding, offline=OfflineSpec(1, width, 1, SUBSAMPLING), prompt=prompt)


def _known(size: int | None, what: str) -> int:
    if size is None:
        raise ArtifactError(
            f"The graphs do not state the {what}.",
            expected="static sizes of widths, layers and scores",
            found="a dynamic one",
            todo="export them with static shapes but for batch and time",
        )
    return size


def _frontend(model: ForeignModel, folder: ForeignFolder) -> FrontendSpec:
    bands = _known(model.encoder.ports.inputs[SIGNAL].shape[1], "number of mel bands")
    stated = [str(one.value) for one in folder.settings.of("normalisation")]
    normalize = "per_feature" if "per_feature" in stated or (not stated and not model.encoder.ports.streaming) else "NA"
    return FrontendSpec(16000, bands, 512, 400, 160, 0.97, USUAL_GUARD, normalize)


def _streaming(model: ForeignModel, folder: ForeignFolder) -> StreamingSpec:
    inputs = model.encoder.ports.inputs
    _, layers, left, width = inputs[CHANNEL].shape
    left = left or next((frames for frames, _ in folder.settings.left_contexts()), known_left_context(folder))
    conv = (inputs[TIME].shape[-1] if TIME in inputs else None) or _kernel(model) - 1
    static = inputs[SIGNAL].shape[2]
    cache = 0 if PRE_CACHE in inputs else PRE_ENCODE_CACHE
    lookaheads = lookaheads_of(left)
    if static is not None:
        lookaheads = (max(0, (static - cache) // SUBSAMPLING - 1),)
    return StreamingSpec(
        n_layers=_known(layers, "number of layers"),
        d_model=_known(width, "width"),
        n_heads=1,
        left_context_enc_frames=left,
        lookaheads=lookaheads,
        conv_cache_frames=conv,
        subsampling_factor=SUBSAMPLING,
        pre_encode_cache_mel_frames=PRE_ENCODE_CACHE,
    )


def lookaheads_of(left_context: int) -> tuple[int, ...]:
    """The published lookaheads that a left context allows: it is a multiple of the chunk."""
    return tuple(r for r in LOOKAHEADS if left_context % (r + 1) == 0)


def known_left_context(folder: ForeignFolder) -> int:
    """The left context of the published checkpoint that has this vocabulary: 56 of the multilingual one, else 70."""
    return LEFT_MULTILINGUAL if any(len(one.pieces) >= MULTILINGUAL_TOKENS for one in folder.vocabularies) else LEFT


def _kernel(model: ForeignModel) -> int:
    """Of the encoder's depthwise convolutions, whose weights are [d, 1, k]."""
    shapes = [tuple(tensor.dims) for tensor in model.encoder.graph.initializers.values()]
    return next((shape[2] for shape in shapes if len(shape) == 3 and shape[1] == 1 and shape[2] > 1), KERNEL)


def _decoding(model: ForeignModel, folder: ForeignFolder) -> tuple[DecodingSpec, str]:
    if not model.scores:  # an encoder alone: its frames are all that can be had
        return DecodingSpec(1), CTC
    scores = _known(model.n_scores, "number of scores")
    if model.head == CTC:
        return DecodingSpec(scores - 1), CTC
    durations = DURATIONS if is_tdt(model, folder) else ()
    states = (model.fused or model.predictor or model.encoder).ports.inputs["input_states_1"].shape
    layers, _, hidden = states
    return (
        DecodingSpec(
            vocab_size=scores - 1 - len(durations),
            pred_layers=_known(layers, "decoder's layers"),
            pred_hidden=_known(hidden, "decoder's width"),
            joint_hidden=_known(hidden, "decoder's width"),
            max_symbols_per_frame=10,
            durations=durations,
        ),
        "tdt" if durations else "rnnt",
    )


def is_tdt(model: ForeignModel, folder: ForeignFolder) -> bool:
    """Whether the scores have durations behind them: by the vocabulary's size, else by what the settings and names say."""
    if folder.settings.spec:
        return bool(folder.settings.spec.decoding.durations)
    sizes = {len(one.pieces) + (0 if one.blanks else 1) for one in folder.vocabularies}
    if sizes and model.n_scores:
        return model.n_scores - len(DURATIONS) in sizes
    words = [str(one.value) for one in folder.settings.of("model type")] + [
        str(folder.path),
        folder.repository,
        *model_urls(model),
    ]
    return any("tdt" in word.lower() for word in words)


def model_urls(model: ForeignModel) -> list[str]:
    """What the graphs' metadata calls the model."""
    return [value for part in model.parts for key, value in part.graph.metadata.items() if key in ("url", "model_type")]
