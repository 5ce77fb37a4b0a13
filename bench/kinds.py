"""What each kind of checkpoint can be made into, found by making it: the table of docs/kinds/table.md.

    python bench/kinds.py [--layouts] [--only 'tiny-tdt_ctc ctc']

Of each published structure there is a tiny random checkpoint (nemoport.reference.presets), which NeMo's class wrote and which
emits tokens that follow the audio. It is exported; its tokens are compared with NeMo's own on pseudo-speech at every lookahead;
every precision and target is tried. --layouts makes another table instead: the packages that its fp32 graphs can be laid out as.
A refusal is the product's own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nemoport.artifact import ONNXRUNTIME
from nemoport.cache_layout import KV, NEMO
from nemoport.errors import NemoportError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import Checkpoint, read_checkpoint
from nemoport.export.targets import export_target, targets
from nemoport.package.layouts import layouts, load_layout
from nemoport.progress import silent
from nemoport.quantize import build_variant, precisions
from nemoport.recognizer import Recognizer
from nemoport.reference.random_checkpoint import pseudo_speech, write
from nemoport.spec import CTC
from nemoport.tokens import read_tokens
from nemoport.validate import nemo, nemo_runs

CALIBRATION = Path(__file__).resolve().parent.parent / "reference" / "audio"
SHORTENED = 10  # so many names, if all of them, are a number in a cell
STATES = 640  # width of the decoder's states in every published transducer
LAYOUTS = [name for name in layouts() if load_layout(name).runtime == ONNXRUNTIME]


@dataclass(frozen=True)
class Model:
    """names: published models; preset: the tiny one of their structure; head: of a hybrid, if not NeMo's choice."""

    names: str
    preset: str
    head: str = ""


MODELS = (
    Model("nemotron-speech-streaming-en-0.6b", "tiny"),
    Model("nemotron-3.5-asr-streaming-0.6b", "tiny-multilingual"),
    Model("parakeet_realtime_eou_120m-v1", "tiny-eou"),
    Model("stt_en_fastconformer_hybrid_large_streaming_multi", "tiny-streaming-hybrid"),
    Model("the same, CTC", "tiny-streaming-hybrid", "ctc"),
    Model("parakeet-tdt-0.6b-v2, -v3", "tiny-tdt"),
    Model("parakeet-tdt-1.1b, parakeet-tdt_ctc-110m, -0.6b-ja", "tiny-tdt_ctc"),
    Model("the same hybrids, CTC", "tiny-tdt_ctc", "ctc"),
    Model("parakeet-tdt_ctc-1.1b", "tiny-tdt_ctc-local"),
    Model("parakeet-rnnt-0.6b, -1.1b", "tiny-rnnt"),
    Model("parakeet-ctc-0.6b, -1.1b", "tiny-ctc"),
    Model("parakeet-unified-en-0.6b", "tiny-unified"),
)
COLUMNS = ("models", "kind", "tokens as NeMo's", "ONNX precisions", *(t for t in targets() if t != "onnx"))


def exactness(checkpoint: Checkpoint, artifacts: list[Path]) -> str:
    """Compares tokens with NeMo's on three clips at every lookahead, by NeMo's flush in streams."""
    model, spec = nemo.restore(checkpoint), checkpoint.spec
    clips = [pseudo_speech(seed, 4.0) for seed in (77, 78, 79)]
    language = "en-US" if spec.prompt else None
    same, total, spoken = 0, 0, 0
    with nemo.exact(model):
        for lookahead in spec.lookaheads if spec.streaming else (None,):  # a buffered model is compared offline
            if spec.streaming:
                runs = nemo_runs.stream(model, clips, lookahead, [language] * len(clips), events=spec.events)
            else:
                runs = [nemo_runs.offline(model, clip, None) for clip in clips]
            options = {"lookahead": lookahead, "flush": "nemo"} if spec.streaming else {}
            for artifact in artifacts:
                recognizer = Recognizer.open(artifact, language=language, threads=1, **options)
                for clip, run in zip(clips, runs, strict=True):
                    found = next(recognizer.transcribe([("", clip)]))
                    same, total, spoken = same + (found.tokens == run.tokens), total + 1, spoken + len(run.tokens)
    return f"{same} of {total} ({spoken} tokens)"


def tried(make: Callable[[], object]) -> str:
    """ "" where it can be made, else why not."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            make()
    except NemoportError as error:
        return str(error.found)
    return ""


def made(names: dict[str, Callable[[], object]]) -> str:
    """Those that can be made, and why the others cannot."""
    reasons = {name: tried(make) for name, make in names.items()}
    can = [name for name, reason in reasons.items() if not reason]
    refused = {reason: [name for name, other in reasons.items() if other == reason] for reason in reasons.values() if reason}
    if len(can) == len(reasons) >= SHORTENED:
        return f"all {len(can)}"
    cells = [", ".join(can)] * bool(can)
    if len(refused) == 1 and not can:
        (reason,) = refused
        return f"not tried: {reason} here" if reason.startswith("no ") else f"refused: {reason}"
    return "; ".join([*cells, *(f"{', '.join(names)} refused: {reason}" for reason, names in refused.items())])


def exported(model: Model, work: Path) -> tuple[Checkpoint, Path, list[Path]]:
    """Writes the checkpoint, if it is not there, and exports it: its build folder, and its fp32 artifact of each cache layout."""
    path, build = work / f"{model.preset}.nemo", work / f"build-{model.preset}-{model.head}"
    if not path.exists():
        write(model.preset, path)
    checkpoint = read_checkpoint(str(path), model.head)
    caches = (NEMO, KV) if checkpoint.spec.streaming else (NEMO,)
    return checkpoint, build, [export_checkpoint(checkpoint, build, one).folder for one in caches]


def row(model: Model, work: Path) -> list[str]:
    """A row of the first table."""
    checkpoint, build, artifacts = exported(model, work)
    spec = checkpoint.spec
    manifest = CALIBRATION / ("calibration-multi.jsonl" if spec.prompt else "calibration.jsonl")

    def quantized(name: str) -> Callable[[], object]:
        return lambda: build_variant(build, name, manifest, progress=silent)

    def converted(target: str, name: str) -> Callable[[], object]:
        return lambda: export_target(checkpoint, build, target, name, manifest, progress=silent)

    names = [*precisions(), *(f"{KV}-{name}" for name in precisions() if spec.streaming)]
    cells = [made({"fp32": lambda: None, **{name: quantized(name) for name in names}})]
    for target, one in targets().items():
        if target != "onnx":
            cells.append(made({name: converted(target, name) for name in one.precisions}))
    return [model.names, f"`{spec.kind}`", exactness(checkpoint, artifacts), *cells]


def layout_row(model: Model, work: Path) -> list[str]:
    """A row of the table of packages. Where a consumer has the published sizes built in, the tiny model counts as of those."""
    checkpoint, build, artifacts = exported(model, work)
    spec, pieces = checkpoint.spec, read_tokens(build / "shared" / "tokens.txt")
    sized = spec
    if spec.head != CTC:
        sized = replace(spec, decoding=replace(spec.decoding, pred_hidden=STATES, joint_hidden=STATES))

    def cell(layout: str) -> str:
        arranged, folder = load_layout(layout), work / f"{model.preset}-{model.head}-{layout}"
        reasons = list(arranged.problems(sized, pieces))
        if not arranged.problems(spec, pieces):
            folder.mkdir()
            variants = [one.name for one in artifacts if arranged.takes(one.name)]
            reasons = [reason for reason in (tried(lambda: arranged.lay_out(build, variants[-1:], folder)),) if reason]
        return f"no: {reasons[0]}" if reasons else "yes"

    return [model.names, f"`{spec.kind}`", *(cell(layout) for layout in LAYOUTS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layouts", action="store_true", help="the table of packages instead")
    parser.add_argument("--only", help="one preset, and a head that is not NeMo's choice: 'tiny-tdt_ctc ctc'")
    options = parser.parse_args()
    columns, one_row = (("models", "kind", *LAYOUTS), layout_row) if options.layouts else (COLUMNS, row)
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    with tempfile.TemporaryDirectory() as work:
        for model in MODELS:
            if not options.only or options.only == f"{model.preset} {model.head}".strip():
                print(f"| {' | '.join(cell.replace('|', '/') for cell in one_row(model, Path(work)))} |", flush=True)


if __name__ == "__main__":
    main()
