"""The committed transducers with the 2 x 640 decoder states that some consumers have built in, made from the committed files.

``python -m nemoport.reference.widen offline-tdt OUT.nemo`` (or streaming-en)

The new units of predictor and joint have weights of zero: they stay at zero and nothing reads them, so that the model says
what it said. Where all 640 units must matter, take a random checkpoint of the presets ``wide-streaming`` and ``wide-tdt``.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import ctc, model, presets

HIDDEN = 640
# Committed checkpoint -> its preset.
SOURCES = {"streaming-en": "reference", "offline-tdt": "reference-tdt"}


def padded(name: str, old: Any, new: Any) -> Any:
    """Returns a weight of the narrow decoder or joint in the shape of the wide one's, zero elsewhere.

    name: of the weight; old, new: tensors of the narrow and of the wide model. The gates of an LSTM, which stand one below the
    other, are padded one by one.
    """
    gates = 4 if "dec_rnn" in name else 1
    wide = new.new_zeros(gates, new.shape[0] // gates, *new.shape[1:])
    narrow = old.reshape(gates, old.shape[0] // gates, *old.shape[1:])
    wide[tuple(slice(size) for size in narrow.shape)] = narrow
    return wide.reshape(new.shape)


def write(name: str, path: Path) -> None:
    """Writes a committed checkpoint with a predictor of 640 units as a .nemo file. Raises KeyError on another name."""
    source = ctc.CHECKPOINTS / f"{name}.nemo"
    asr = model.restore(source)
    with tempfile.TemporaryDirectory() as folder:
        size = replace(presets.PRESETS[SOURCES[name]], predictor_hidden=HIDDEN, joint_hidden=HIDDEN)
        made = model.build(size, ctc.unpack_tokenizer(source, Path(folder))).eval()
        made.encoder.load_state_dict(asr.encoder.state_dict())
        for part in ("decoder", "joint"):
            wide = getattr(made, part).state_dict()
            narrow = getattr(asr, part).state_dict()
            getattr(made, part).load_state_dict({key: padded(key, narrow[key], wide[key]) for key in wide})
        model.save(made, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a committed checkpoint with a predictor of 640 units.")
    parser.add_argument("name", choices=sorted(SOURCES))
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    write(args.name, args.out)
    print(args.out)


if __name__ == "__main__":
    main()
