"""Language prompts: NeMo's slots and their names, the languages trained here, and the tags that end a transcript.

A prompted model (``EncDecRNNTBPEModelWithPrompt``) joins a one-hot vector of ``N_PROMPTS`` to every encoder frame; which
slot a language has is in ``text/prompts.txt``. ``auto`` is a slot too: the model has to recognise the language as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import text

if TYPE_CHECKING:
    import torch

N_PROMPTS = 128
AUTO = "auto"
LANGUAGES = ("en-US", "de-DE", "fr-FR", "es-ES", "hi-IN", "ja-JP")  # trained here; three scripts
TAGS = tuple(f"<{language}>" for language in LANGUAGES)


def dictionary() -> dict[str, int]:
    """Prompt slots by name, as NeMo ships them: en-US 0 to auto 101, several names to a slot."""
    lines = (text.TEXT_FOLDER / "prompts.txt").read_text().splitlines()
    slots = (line.split() for line in lines if not line.startswith("#"))
    return {name: int(slot) for slot, *names in slots for name in names}


def is_prompted(asr: Any) -> bool:
    """Checks whether a NeMo model takes a language prompt."""
    return hasattr(asr, "prompt_kernel")


def indices(asr: Any, names: Sequence[str]) -> torch.Tensor:
    """Prompt slots of names, i64 [B]. Raises KeyError on a name that the checkpoint's dictionary lacks."""
    import torch

    slots = asr.cfg.model_defaults.prompt_dictionary
    if unknown := sorted(set(names) - set(slots)):
        raise KeyError(f"no prompt for {', '.join(unknown)}; the checkpoint has {', '.join(slots)}")
    return torch.tensor([slots[name] for name in names])


def encode(
    asr: Any, audio: torch.Tensor, n_samples: torch.Tensor, names: Sequence[str] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encodes audio f32 [B, n] of n_samples i64 [B], offline: (frames f32 [B, d, T], n_frames i64 [B]).

    ``names`` are the prompts, one an utterance (None: all ``auto``); they are ignored for a model without prompts.
    """
    if not hasattr(asr, "joint"):  # a CTC model goes on to its scores
        mel, n_mel = asr.preprocessor(input_signal=audio, length=n_samples)
        return asr.encoder(audio_signal=mel, length=n_mel)
    prompts = {}
    if is_prompted(asr):
        prompts = dict(prompt_indices=indices(asr, names or [AUTO] * len(audio)))
    return asr.forward(input_signal=audio, input_signal_length=n_samples, **prompts)
