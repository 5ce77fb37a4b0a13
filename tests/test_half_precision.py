"""Checkpoints saved in half precision: exported in float32 of the same rounded weights, and held against NeMo's own run of that
very file, whose filterbank and window are rounded too."""

import io
import tarfile
from pathlib import Path

import pytest
import torch

from nemoport.errors import CheckpointError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.export.shared import check_frontend_buffers
from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import read_corpus
from nemoport.validate import nemo, nemo_runs

REFERENCE = Path(__file__).parent.parent / "reference"
WEIGHTS = "./model_weights.ckpt"
FILTERBANK, WINDOW = "preprocessor.featurizer.fb", "preprocessor.featurizer.window"


def converted(name: str, folder: Path, convert) -> Path:
    """A reference checkpoint with its tensors changed. convert: (name, tensor) -> tensor."""
    path = folder / f"{name}.nemo"
    with tarfile.open(REFERENCE / "checkpoints" / f"{name}.nemo") as source, tarfile.open(path, "w") as target:
        for member in source:
            content = source.extractfile(member).read() if member.isfile() else b""
            if member.name == WEIGHTS:
                tensors = torch.load(io.BytesIO(content), weights_only=True)
                stream = io.BytesIO()
                torch.save({key: convert(key, tensor) for key, tensor in tensors.items()}, stream)
                content, member.size = stream.getvalue(), len(stream.getvalue())
            target.addfile(member, io.BytesIO(content))
    return path


def cast(kind):
    return lambda key, tensor: tensor.to(kind) if tensor.is_floating_point() else tensor


HALVES = {
    "bfloat16": ("offline-tdt", cast(torch.bfloat16), 0),
    "float16": ("offline-tdt", cast(torch.float16), 0),
    # as NeMo saves again what it restored: float32, of rounded values
    "rounded": ("offline-tdt", lambda key, tensor: cast(torch.bfloat16)(key, tensor).to(tensor.dtype), 0),
    "mixed": ("streaming-en", lambda key, tensor: cast(torch.float16 if ".layers." in key else torch.bfloat16)(key, tensor), 6),
}


@pytest.mark.parametrize("half", HALVES)
def test_the_graphs_give_nemos_tokens_of_that_file(half, tmp_path):
    from nemo.collections.asr.models import ASRModel

    name, convert, lookahead = HALVES[half]
    checkpoint = read_checkpoint(str(converted(name, tmp_path, convert)))
    artifact = export_checkpoint(checkpoint, tmp_path / "build")
    with nemo.quiet():
        theirs = ASRModel.restore_from(str(checkpoint.path), map_location="cpu").eval()
    theirs.preprocessor.featurizer.dither = 0.0
    oracle = nemo.restore(checkpoint)
    ours = Recognizer.open(artifact.folder, lookahead=lookahead or None)
    audio = REFERENCE / "audio" / ("eval.jsonl" if lookahead else "eval-tdt.jsonl")
    utterances = sorted(read_corpus(audio, 16000).utterances, key=lambda u: u.seconds)[:3]
    for utterance in utterances:
        samples = utterance.samples()
        found = next(ours.transcribe([("", samples)]))
        for model in (theirs, oracle):
            with nemo.exact(model):
                run = nemo_runs.offline(model, samples, lookahead or None)
            assert run.tokens and list(found.tokens) == list(run.tokens)


def buffers(**changed) -> dict[str, torch.Tensor]:
    weights = read_checkpoint(str(REFERENCE / "checkpoints" / "offline-tdt.nemo")).load_weights()
    return {key: changed.get(key.rpartition(".")[2], lambda t: t)(weights[key].clone()) for key in (FILTERBANK, WINDOW)}


def check(weights) -> None:
    check_frontend_buffers(read_checkpoint(str(REFERENCE / "checkpoints" / "offline-tdt.nemo")), weights)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["fb", "window"])
def test_rounded_buffers_are_the_configs(kind, name):
    """To a unit of the half precision that they are in, and no further: what was changed before it was rounded is refused."""
    check(buffers(**{name: lambda tensor: tensor.to(kind).float()}))
    for factor in (1 + 3 * torch.finfo(kind).eps, 1 - 3 * torch.finfo(kind).eps, 0.5):
        with pytest.raises(CheckpointError, match="front end that its config does not yield"):
            check(buffers(**{name: lambda tensor, factor=factor: (tensor * factor).to(kind).float()}))


@pytest.mark.parametrize("name", ["fb", "window"])
def test_float32_buffers_have_no_allowance(name):
    with pytest.raises(CheckpointError, match="front end that its config does not yield"):
        check(buffers(**{name: lambda tensor: tensor * 1.001}))


def test_bfloat16_rounding_is_refused_of_what_has_more_bits():
    """Of float16's precision, but off by what bfloat16's would allow."""
    with pytest.raises(CheckpointError, match="front end"):
        check(buffers(window=lambda tensor: (tensor * 1.004).half().float()))


def test_the_oracle_refuses_another_front_end(tmp_path):
    """Its own buffers stand in for the checkpoint's, so these must agree."""
    path = converted("offline-tdt", tmp_path, lambda key, tensor: tensor * 1.1 if key == WINDOW else tensor)
    with pytest.raises(CheckpointError, match="window"):
        nemo.restore(read_checkpoint(str(path)))
