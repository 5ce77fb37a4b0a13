"""Records golden data of a checkpoint with NeMo's own model, in the two forms that `nemoport verify --golden` reads.

``python -m nemoport.reference.golden my.nemo --offline my.npz --stream my_streaming.npz [--seed 0]``

The features are random: what is recorded is the function of the weights, and no speech of anybody.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nemoport.export.checkpoint import Checkpoint, read_checkpoint
from nemoport.validate import nemo

MEL_FRAMES = 131  # of the offline run: more than a chunk, and no whole number of frames
TOKENS = (3, 5, 7, 9)


def record_offline(checkpoint: Checkpoint, path: Path, seed: int = 0) -> None:
    """Writes NeMo's encoder frames of random features, and of a transducer the scores behind each prefix of TOKENS. A model with
    a prompt gets that of its second language."""
    import torch

    model, prompt = _restored(checkpoint)
    torch.manual_seed(seed)
    with nemo.exact(model):
        feats = torch.randn(1, checkpoint.spec.frontend.n_mels, MEL_FRAMES)
        enc_out, _ = model.encoder(audio_signal=feats, length=torch.tensor([MEL_FRAMES]))
        enc_out = model._apply_prompt_to_encoded(enc_out) if prompt else enc_out
        arrays = {"feats": feats, "enc_out": enc_out, **prompt}
        if hasattr(model, "joint"):
            tokens = torch.tensor([TOKENS])
            pred_out = model.decoder(targets=tokens, target_length=torch.tensor([len(TOKENS)]))[0]
            joint_out = model.joint.joint(enc_out.transpose(1, 2), pred_out.transpose(1, 2))
            arrays |= {"tokens": tokens, "pred_out": pred_out, "joint_out": joint_out}
    _save(path, arrays, checkpoint)


def record_stream(checkpoint: Checkpoint, path: Path, short: int = 1, seed: int = 0) -> None:
    """Writes NeMo's frames of two later windows of the default lookahead, from empty caches on. short: by how many mel frames the
    windows are shorter than the model's, as those of the published file are."""
    import torch

    model, prompt = _restored(checkpoint)
    encoder, streaming = model.encoder, checkpoint.spec.require_streaming()
    encoder.setup_streaming_params()
    frames = streaming.window_mel_frames(streaming.lookaheads[0], first=False) - short
    torch.manual_seed(seed)
    arrays: dict[str, Any] = {**prompt}
    with nemo.exact(model):
        channel, time, length = encoder.get_initial_cache_state(batch_size=1)
        for number in range(2):
            feats = torch.randn(1, checkpoint.spec.frontend.n_mels, frames)
            out, count, channel, time, length = encoder(
                audio_signal=feats,
                length=torch.tensor([frames]),
                cache_last_channel=channel,
                cache_last_time=time,
                cache_last_channel_len=length,
            )
            out = model._apply_prompt_to_encoded(out) if prompt else out
            arrays |= {f"f{number}": feats, f"out{number}": out, f"len{number}": count, f"cl{number + 1}": length}
    _save(path, arrays, checkpoint)


def _restored(checkpoint: Checkpoint) -> tuple[Any, dict[str, Any]]:
    """Returns NeMo's model, and the array of its prompt, if it has one."""
    import torch

    model, prompt = nemo.restore(checkpoint), checkpoint.spec.prompt
    if prompt is None:
        return model, {}
    language = sorted(prompt.languages)[1]
    model.set_inference_prompt(language)
    return model, {"prompt_index": torch.tensor([prompt.languages[language]])}


def _save(path: Path, arrays: dict[str, Any], checkpoint: Checkpoint) -> None:
    meta = {"model_id": checkpoint.name, "revision": checkpoint.sha256, "nemo_version": version("nemo_toolkit")}
    kept = {name: array.numpy() for name, array in arrays.items()}
    np.savez_compressed(path, **kept, meta=np.array(json.dumps(meta)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--offline", type=Path)
    parser.add_argument("--stream", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    checkpoint = read_checkpoint(options.checkpoint)
    if options.offline:
        record_offline(checkpoint, options.offline, options.seed)
    if options.stream:
        record_stream(checkpoint, options.stream, seed=options.seed)


if __name__ == "__main__":
    main()
