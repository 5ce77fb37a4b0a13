"""A checkpoint that marks ends of utterances, of ``checkpoints/streaming-en.nemo`` and ``checkpoints/streaming-eou.safetensors``.

``python -m nemoport.reference.eou OUT.nemo`` writes it. Its structure is nvidia/parakeet_realtime_eou_120m-v1's with smaller
numbers: one lookahead, a predictor of one LSTM layer, and two tokens behind the others, ``<EOU>`` and ``<EOB>``. Preprocessor and
encoder are those of the first file; predictor and joint are the second's (``eou_training``).
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from . import evaluate, kinds, markdown_table, model, presets

CHECKPOINTS, AUDIO = (Path(__file__).resolve().parent / name for name in ("checkpoints", "audio"))
SOURCE = CHECKPOINTS / "streaming-en.nemo"
WEIGHTS = CHECKPOINTS / "streaming-eou.safetensors"  # f16 tensors of decoder and joint, by their names
EVENTS = presets.END_OF_UTTERANCE
LOOKAHEAD = 1


def write_tokenizer(checkpoint: Path, folder: Path, *, control: bool = False) -> Path:
    """Writes the tokenizer of a .nemo file, with the events behind its pieces, in NeMo's files; returns the folder. control:
    whether they are control symbols, as NeMo's script for them makes them without --is_userdefined."""
    import sentencepiece

    with tarfile.open(checkpoint) as archive:
        (member,) = (one for one in archive.getmembers() if one.name.endswith("_tokenizer.model"))
        file = archive.extractfile(member)
        assert file is not None
        content = model.with_pieces(file.read(), EVENTS, control=control)
    (folder / "tokenizer.model").write_bytes(content)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=content)
    (folder / "vocab.txt").write_text("".join(f"{pieces.id_to_piece(i)}\n" for i in range(pieces.get_piece_size())))
    return folder


def untrained(tokenizer_folder: Path, *, control: bool = False) -> Any:
    """Builds the model with the encoder of ``SOURCE``, and its predictor and joint as far as they fit; in eval mode.

    The tokenizer's files are written to a folder, and must stay until the model is saved. control: as ``write_tokenizer``.
    """
    import torch
    from nemo.collections.asr.models import EncDecRNNTBPEModel
    from omegaconf import OmegaConf

    asr = model.restore(SOURCE)
    config: Any = OmegaConf.to_container(asr.cfg)
    config["tokenizer"] = dict(dir=str(write_tokenizer(SOURCE, tokenizer_folder, control=control)), type="bpe")
    config["encoder"]["att_context_size"] = [kinds.LEFT_CONTEXT_ENC_FRAMES, LOOKAHEAD]
    config["decoder"]["prednet"]["pred_rnn_layers"] = 1
    for section, key in (("joint", "vocabulary"), ("joint", "num_classes"), ("decoder", "vocab_size")):
        config[section].pop(key, None)
    for key in ("target", "nemo_version"):
        config.pop(key, None)
    built: Any = OmegaConf.create(config)
    made: Any = EncDecRNNTBPEModel(built)
    made.eval()
    made.preprocessor.featurizer.dither = 0.0
    old, new, n_old = asr.state_dict(), made.state_dict(), len(asr.tokenizer.vocab)
    with torch.no_grad():
        for name, weight in new.items():
            if name not in old:
                continue
            if weight.shape == old[name].shape:
                weight.copy_(old[name])
            else:  # a row for each token, and blank behind them
                weight[:n_old], weight[-1] = old[name][:n_old], old[name][-1]
    return made


def build(tokenizer_folder: Path, *, control: bool = False) -> Any:
    """Builds the trained model, in eval mode. tokenizer_folder, control: as ``untrained``."""
    from safetensors.torch import load_file

    made = untrained(tokenizer_folder, control=control)
    weights = {name: weight.float() for name, weight in load_file(WEIGHTS).items()}
    result = made.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys, result.unexpected_keys
    return made


def write(path: Path, *, control: bool = False) -> None:
    """Writes the trained model as a .nemo file. control: as ``write_tokenizer``."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(build(Path(folder), control=control), path)


def table(path: Path, silence_s: float = 1.0) -> None:
    """Prints a Markdown table of NeMo's streaming over the evaluation speech, silence behind each clip: WER in percent where the
    decoder is reset behind events and where it is not, how many clips end in ``<EOU>``, and how many events come before."""
    import jiwer
    import numpy as np
    import soundfile

    from nemoport.events import EventSpec
    from nemoport.validate import nemo, nemo_runs

    asr = model.restore(path)
    utterance, backchannel = (asr.tokenizer.vocab.index(symbol) for symbol in EVENTS)
    columns = ("clips", "words", "WER", "WER without reset", "end in <EOU>", "in <EOB>", "earlier events")
    print(markdown_table.head([f"set, {silence_s:g} s of silence behind", *columns]))
    for name, rows in evaluate.by_set(AUDIO / "eval.jsonl", as_written=False).items():
        silence = np.zeros(int(silence_s * 16000), np.float32)
        audio = [np.concatenate([soundfile.read(row["audio_filepath"], dtype="float32")[0], silence]) for row in rows]
        runs = {}
        for resets in (True, False):
            with nemo.exact(asr), nemo.quiet():
                runs[resets] = nemo_runs.stream(asr, audio, LOOKAHEAD, events=EventSpec(utterance, backchannel, resets))
        texts = [row["text"] for row in rows]
        rates = [markdown_table.percent(jiwer.wer(texts, [run.text for run in runs[resets]])) for resets in (True, False)]
        last = [run.tokens[-1] if run.tokens else None for run in runs[True]]
        every = sum(token in (utterance, backchannel) for run in runs[True] for token in run.tokens)
        ends = [last.count(utterance), last.count(backchannel)]
        words = sum(len(text.split()) for text in texts)
        print(markdown_table.row([name, len(rows), words, *rates, *ends, every - sum(ends)]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the checkpoint that marks ends of utterances.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--evaluate", action="store_true", help="print word error rates and events by NeMo")
    args = parser.parse_args()
    write(args.out)
    for silence_s in (0.0, 1.0) if args.evaluate else ():
        table(args.out, silence_s)


if __name__ == "__main__":
    main()
