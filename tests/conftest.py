"""What the tests of the pipeline share: the committed checkpoint, a little of its evaluation speech, its fp32 build."""

import contextlib
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))  # helper modules; pytest's importlib mode does not add it
SHORT_UTTERANCES = 8


@pytest.fixture(scope="session")
def reference_checkpoint():
    from nemoport.export.checkpoint import read_checkpoint

    return read_checkpoint(str(ROOT / "reference" / "checkpoints" / "streaming-en.nemo"))


@pytest.fixture(scope="session")
def eval_corpus(reference_checkpoint):
    """Eight short utterances of different lengths, and one that outlasts the encoder's left context (5.6 s)."""
    from nemoport.speech.corpus import read_corpus

    corpus = read_corpus(ROOT / "reference" / "audio" / "eval.jsonl", reference_checkpoint.spec.frontend.sample_rate_hz)
    by_length = sorted(corpus.utterances, key=lambda u: u.seconds)
    short = [u for u in by_length if u.seconds < 4.0]
    long = next(u for u in by_length if u.seconds > 6.0)
    return replace(corpus, utterances=(*short[:: len(short) // SHORT_UTTERANCES][:SHORT_UTTERANCES], long))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder that all processes of a test run share, for what takes long to make; NEMOPORT_TESTS names one that stays."""
    base = tmp_path_factory.getbasetemp()
    return Path(os.environ.get("NEMOPORT_TESTS") or (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)) / "shared"


@pytest.fixture(scope="session")
def random_checkpoint(shared_folder):
    """preset -> the path of a random checkpoint, made once; made.json beside it has its parameters and tokens a second. Tests
    must not change it."""

    def path(preset: str) -> Path:
        pytest.importorskip("nemo")
        from nemoport.files import folder_once
        from nemoport.reference.random_checkpoint import write

        def fill(folder: Path) -> None:
            (folder / "made.json").write_text(json.dumps(write(preset, folder / "checkpoint.nemo")))

        folder_once(shared_folder / preset, fill)
        return shared_folder / preset / "checkpoint.nemo"

    return path


@pytest.fixture(scope="session")
def ctc_checkpoint(shared_folder):
    """name -> the path of a reference checkpoint with a CTC head: hybrid-streaming, hybrid-tdt, ctc-streaming or ctc-offline.
    Tests must not change it."""

    def path(name: str) -> Path:
        pytest.importorskip("nemo")
        from nemoport.files import folder_once
        from nemoport.reference import ctc

        folder_once(shared_folder / name, lambda folder: ctc.write(name, folder / f"{name}.nemo"))
        return shared_folder / name / f"{name}.nemo"

    return path


@pytest.fixture(scope="session")
def build(reference_checkpoint, shared_folder):
    """A build folder with the fp32 variant. Tests must not change it: copy it."""
    pytest.importorskip("torch")
    from nemoport.export.build import export_checkpoint
    from nemoport.files import folder_once

    folder_once(shared_folder / "build", lambda folder: export_checkpoint(reference_checkpoint, folder))
    (shared_folder / "oracle").mkdir(exist_ok=True)
    if "NEMOPORT_TESTS" not in os.environ:  # from run to run the code that calibrates may change
        (shared_folder / "calibration").mkdir(exist_ok=True)
    return shared_folder / "build"


@pytest.fixture(scope="module")
def fewer_streams():
    """Variants that are built here are calibrated at the two longest lookaheads, which takes a quarter of the time: the others
    have most of the chunks. All files of one `shared_folder` that calibrate use it. test_calibration.py is of every stream."""
    from nemoport.calibration.stream import CalibrationStreams

    whole = CalibrationStreams.of

    def of(corpus, artifact, parameters):
        streams = whole(corpus, artifact, parameters)
        streams.plans = tuple(plan for plan in streams.plans if plan.lookahead in artifact.spec.lookaheads[:2])
        return streams

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CalibrationStreams, "of", staticmethod(of))
        yield


@pytest.fixture
def cost_in_process(monkeypatch):
    """The gate `cost` measures in this process, which has imported the runtime, in place of one of its own: no limit is on its
    speed or its memory. test_gates.py runs it as it is."""
    from nemoport.validate import probe
    from nemoport.validate.gates import cost

    def run(command, **_):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            probe.main(*command[3:])
        return SimpleNamespace(returncode=0, stdout=printed.getvalue(), stderr="")

    monkeypatch.setattr(cost, "subprocess", SimpleNamespace(run=run))


@pytest.fixture(scope="session")
def oracle(reference_checkpoint, eval_corpus, shared_folder):
    """NeMo's runs on `eval_corpus`, at every lookahead."""
    pytest.importorskip("nemo")
    from nemoport.validate.oracle import record_oracle

    return record_oracle(reference_checkpoint, eval_corpus, shared_folder)


@pytest.fixture(scope="session")
def docs_package(shared_folder):
    """A package of the English reference with kv-int8-weight, for documents and examples. Not to be changed."""
    pytest.importorskip("torch")
    from test_package import make, write_results

    from nemoport.export.build import export_checkpoint
    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.files import folder_once
    from nemoport.quantize import build_variant

    def fill(folder: Path) -> None:
        build = folder / "build"
        export_checkpoint(read_checkpoint(str(ROOT / "reference" / "checkpoints" / "streaming-en.nemo")), build, "kv")
        build_variant(build, "kv-int8-weight", None, progress=lambda line: None)
        write_results(build, "kv-int8-weight")
        make(build, folder / "dist", ["kv-int8-weight"], language="en")

    folder_once(shared_folder / "package-docs", fill)
    return shared_folder / "package-docs" / "dist"


@pytest.fixture(scope="session")
def eou_checkpoint(shared_folder):
    """The trained checkpoint that marks ends of utterances, written by NeMo."""
    pytest.importorskip("nemo")
    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.files import folder_once
    from nemoport.reference import eou

    folder_once(shared_folder / "eou", lambda folder: eou.write(folder / "streaming-eou.nemo"))
    return read_checkpoint(str(shared_folder / "eou" / "streaming-eou.nemo"))


@pytest.fixture(scope="session")
def eou_build(eou_checkpoint, shared_folder):
    """A build folder of it with the variants fp32 and kv-fp32. Tests must not change it: copy it."""
    from nemoport.export.build import export_checkpoint
    from nemoport.files import folder_once

    def fill(folder: Path) -> None:
        for layout in ("nemo", "kv"):
            export_checkpoint(eou_checkpoint, folder, layout)

    folder_once(shared_folder / "eou-build", fill)
    return shared_folder / "eou-build"
