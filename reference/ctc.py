"""Checkpoints with a CTC head, made from the committed ones by NeMo's own classes: hybrids of transducer and CTC, and CTC alone.

``python -m nemoport.reference.ctc FOLDER [NAME ...]`` writes NAME.nemo files (default: all of ``VARIANTS``), and
``--evaluate`` prints their word error rates by NeMo, that of a hybrid's transducer beside that of its CTC head.

The heads, and the encoders' last layers, are in ``checkpoints/ctc-heads.safetensors`` (``ctc_head`` trains them); everything
else is the committed checkpoints'.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import evaluate, kinds, markdown_table, model, presets, written

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"  # of the repository, also where build/tree links this file
HEADS = CHECKPOINTS / "ctc-heads.safetensors"
# Name -> (the committed checkpoint, its preset, whether its transducer stays beside the CTC head).
VARIANTS = {
    "hybrid-streaming": ("streaming-en", "reference", True),
    "hybrid-tdt": ("offline-tdt", "reference-tdt", True),
    "ctc-streaming": ("streaming-en", "reference", False),
    "ctc-offline": ("offline-tdt", "reference-tdt", False),
}


def unpack_tokenizer(checkpoint: Path, folder: Path) -> Path:
    """Writes the tokenizer files of a .nemo file under the names that NeMo reads them by; returns the folder."""
    with tarfile.open(checkpoint) as archive:
        for member in archive.getmembers():
            for name in ("tokenizer.model", "tokenizer.vocab", "vocab.txt"):
                if member.name.endswith(f"_{name}"):
                    file = archive.extractfile(member)
                    assert file is not None
                    (folder / name).write_bytes(file.read())
    return folder


def build(name: str, tokenizer_folder: Path) -> Any:
    """Builds one of ``VARIANTS``, in eval mode; the tokenizer's files are written to a folder and must stay until it is saved.

    Raises KeyError on another name.
    """
    from omegaconf import open_dict
    from safetensors.torch import load_file

    source, preset, hybrid = VARIANTS[name]
    path = CHECKPOINTS / f"{source}.nemo"
    asr = model.restore(path)
    size = replace(presets.PRESETS[preset], decoders="hybrid" if hybrid else "ctc")
    made = model.build(size, unpack_tokenizer(path, tokenizer_folder)).eval()
    with open_dict(made.cfg):
        made.cfg.validation_ds = dict(use_start_end_token=False)  # NeMo's `transcribe` of these classes reads it
    for part in ("encoder", "decoder", "joint") if hybrid else ("encoder",):
        getattr(made, part).load_state_dict(getattr(asr, part).state_dict())
    trained = {key.removeprefix(f"{source}."): tensor.float() for key, tensor in load_file(HEADS).items()}
    layer = {key.removeprefix("layer."): tensor for key, tensor in trained.items() if key.startswith("layer.")}
    last = made.encoder.layers[-1]
    last.load_state_dict(last.state_dict() | layer)
    head = dict(weight=trained["head.weight"][..., None], bias=trained["head.bias"])  # a convolution over one frame
    (made.ctc_decoder if hybrid else made.decoder).decoder_layers[0].load_state_dict(head)
    return made


def write(name: str, path: Path) -> None:
    """Writes one of ``VARIANTS`` as a .nemo file. Raises KeyError on another name."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(build(name, Path(folder)), path)


def texts(asr: Any, rows: list[dict], lookahead: int | None) -> list[str]:
    """Transcribes rows by NeMo's own ``transcribe`` with the decoder that the model is set to."""
    if lookahead is not None:
        asr.encoder.set_default_att_context_size([kinds.LEFT_CONTEXT_ENC_FRAMES, lookahead])
    found = asr.transcribe([row["audio_filepath"] for row in rows], batch_size=16, verbose=False)
    return [hypothesis.text for hypothesis in found]


def table(name: str, asr: Any) -> None:
    """Prints a Markdown table of NeMo's WER of words (no case, no punctuation) in percent, a row for each decoder and set."""
    import jiwer

    source, _, hybrid = VARIANTS[name]
    streaming = source == "streaming-en"
    manifest = CHECKPOINTS.parent / "audio" / ("eval.jsonl" if streaming else "eval-tdt.jsonl")
    columns = kinds.LOOKAHEADS_ENC_FRAMES if streaming else (None,)
    print(markdown_table.head(["set", "decoder", *(f"lookahead {right}" if streaming else "WER" for right in columns)]))
    for decoder in ("rnnt", "ctc") if hybrid else ("ctc",):
        if hybrid:
            asr.change_decoding_strategy(decoder_type=decoder, verbose=False)
        for title, rows in evaluate.by_set(manifest, as_written=not streaming).items():
            wanted = [written.spoken(row["text"]) for row in rows]
            rates = [jiwer.wer(wanted, [written.spoken(line) for line in texts(asr, rows, right)]) for right in columns]
            print(markdown_table.row([title, decoder, *map(markdown_table.percent, rates)]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes checkpoints with a CTC head.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(VARIANTS), metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--evaluate", action="store_true", help="print word error rates by NeMo")
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(VARIANTS)):
        parser.error(f"there is no {', '.join(unknown)}; expected {', '.join(VARIANTS)}")
    for name in args.names:
        path = args.folder / f"{name}.nemo"
        write(name, path)
        print(path)
        if args.evaluate:
            table(name, model.restore(path))


if __name__ == "__main__":
    main()
