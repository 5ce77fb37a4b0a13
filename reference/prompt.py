"""The language prompt: NeMo's slots and their names, the languages taught here, and the tags that end a transcript.

A prompted model (``EncDecRNNTBPEModelWithPrompt``) joins a one-hot vector of ``N_PROMPTS`` to every encoder frame; which
slot a language has is in ``text/prompts.txt``. ``auto`` is a slot too: the model is to find the language out by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import text

N_PROMPTS = 128
AUTO = "auto"
LANGUAGES = ("en-US", "de-DE", "fr-FR", "es-ES", "hi-IN", "ja-JP")  # taught here; three scripts
TAGS = tuple(f"<{language}>" for language in LANGUAGES)


def dictionary() -> dict[str, int]:
    """Slots by name, as NeMo ships them: en-US 0 to auto 101, several names to a slot."""
    lines = (text.TEXT_FOLDER / "prompts.txt").read_text().splitlines()
    slots = (line.split() for line in lines if not line.startswith("#"))
    return {name: int(slot) for slot, *names in slots for name in names}


def is_prompted(asr) -> bool:
    return hasattr(asr, "prompt_kernel")


def indices(asr, names: Sequence[str]):
    """i64 [B]: the slot of each name. Raises KeyError on a name that the checkpoint's dictionary lacks."""
    import torch

    slots = asr.cfg.model_defaults.prompt_dictionary
    if unknown := sorted(set(names) - set(slots)):
        raise KeyError(f"no prompt for {', '.join(unknown)}; the checkpoint has {', '.join(slots)}")
    return torch.tensor([slots[name] for name in names])


def encode(asr, audio, n_samples, names: Sequence[str] | None = None) -> tuple:
    """(frames f32 [B, d, T], n_frames i64 [B]) of audio f32 [B, n], n_samples i64 [B], offline.

    ``names`` are the prompts, one an utterance (None: all ``auto``); a model without prompts takes no notice of them.
    """
    prompts = {}
    if is_prompted(asr):
        prompts = dict(prompt_indices=indices(asr, names or [AUTO] * len(audio)))
    return asr.forward(input_signal=audio, input_signal_length=n_samples, **prompts)
