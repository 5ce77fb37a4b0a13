"""Kinds of checkpoint that the recipe makes, and what sets their NeMo configurations apart.

"streaming" is a cache-aware FastConformer transducer; "prompt" is a streaming one that also takes the language as a
prompt; "eou" is one of a single lookahead; "rnnt" is one of full context, "tdt" another whose joint also scores how many frames
to step on (TDT); "unified" is one trained with full and with chunked attention. The class of NeMo's model and its decoders are
``presets.Dimensions.decoders``.
"""

from __future__ import annotations

from typing import Any, Literal

from . import prompt

Kind = Literal["streaming", "prompt", "eou", "rnnt", "tdt", "unified"]

LOOKAHEADS_ENC_FRAMES = (13, 6, 1, 0)
LEFT_CONTEXT_ENC_FRAMES = 70
PROMPT_LOOKAHEADS_ENC_FRAMES = (3, 0, 6, 13)  # in the published order: the first is what NeMo starts with
PROMPT_LEFT_CONTEXT_ENC_FRAMES = 56
EOU_LOOKAHEADS_ENC_FRAMES = (1,)
UNIFIED_CONTEXTS_ENC_FRAMES = [
    [70],
    [1, 2, 7, 13],
    [0, 1, 2, 3, 4, 7, 13],
]  # left, chunk and right, each of which it was trained with
TDT_DURATIONS_ENC_FRAMES = (0, 1, 2, 3, 4)  # how far a TDT joint may step, by index of its last outputs
TDT_SIGMA = 0.02  # taken from every token log-probability in training (arXiv:2304.06795, section 3.2)


def is_tdt(asr) -> bool:
    """Checks whether a NeMo model is of the kind "tdt"."""
    return (asr.cfg.get("loss") or {}).get("loss_name") == "tdt"


def kind_of(asr) -> Kind:
    """Kind of a NeMo model."""
    return "tdt" if is_tdt(asr) else "prompt" if prompt.is_prompted(asr) else "streaming"


def context(kind: Kind) -> tuple[int, tuple[int, ...]]:
    """Left context and lookaheads of a kind, in encoder frames; without lookaheads for those of full context."""
    if kind == "prompt":
        return PROMPT_LEFT_CONTEXT_ENC_FRAMES, PROMPT_LOOKAHEADS_ENC_FRAMES
    return LEFT_CONTEXT_ENC_FRAMES, {"streaming": LOOKAHEADS_ENC_FRAMES, "eou": EOU_LOOKAHEADS_ENC_FRAMES}.get(kind, ())


def config_sections(kind: Kind) -> dict[str, dict[str, Any]]:
    """Entries of a NeMo configuration that depend on the kind, by section. Raises KeyError on an unknown kind."""
    durations = list(TDT_DURATIONS_ENC_FRAMES)
    left, lookaheads = context(kind)
    streaming = dict(
        model_defaults={},
        preprocessor=dict(normalize="NA"),
        encoder=dict(
            causal_downsampling=True,
            conv_norm_type="layer_norm",
            conv_context_size="causal",
            att_context_size=[[left, right] for right in lookaheads],
            att_context_style="chunked_limited",
        ),
        joint={},
        decoding=dict(model_type="rnnt"),
        loss=dict(loss_name="default", warprnnt_numba_kwargs=dict(fastemit_lambda=0.0, clamp=-1.0)),
    )
    full = streaming | dict(
        preprocessor=dict(normalize="per_feature"),
        encoder=dict(
            causal_downsampling=False,
            conv_norm_type="batch_norm",
            conv_context_size=None,
            att_context_size=[-1, -1],
            att_context_style="regular",
        ),
    )
    return {
        "streaming": streaming,
        "prompt": streaming
        | dict(
            model_defaults=dict(
                initialize_prompt_feature=True, num_prompts=prompt.N_PROMPTS, prompt_dictionary=prompt.dictionary()
            ),
            decoding=dict(model_type="rnnt", strip_lang_tags=True),
        ),
        "eou": streaming,
        "rnnt": full,
        "tdt": full
        | dict(
            model_defaults=dict(tdt_durations=durations, num_tdt_durations=len(durations)),
            joint=dict(num_extra_outputs=len(durations)),
            decoding=dict(model_type="tdt", durations=durations),
            # NeMo takes the decoder's durations from here, not from the decoding section.
            loss=dict(
                loss_name="tdt", tdt_kwargs=dict(fastemit_lambda=0.0, clamp=-1.0, durations=durations, sigma=TDT_SIGMA, omega=0.1)
            ),
        ),
        "unified": full
        | dict(
            encoder=full["encoder"]
            | dict(
                att_context_style="chunked_limited_with_rc",
                att_chunk_context_size=UNIFIED_CONTEXTS_ENC_FRAMES,
                conv_context_style="dcc",
            )
        ),
    }[kind]
