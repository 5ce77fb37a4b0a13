"""What CONTRIBUTING.md says of adding something: each toy is added from outside, in the files that the text names and no others.

A toy lives in a linked copy of the package, where a process of its own finds it.
"""

import json
import os
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "reference" / "checkpoints" / "streaming-en.nemo"
AUDIO = ROOT / "reference" / "audio"

PRECISION = """
from dataclasses import dataclass
import onnx
from nemoport.artifact import ENCODER
from nemoport.graph_file import save_model
from nemoport.quantize.graph import copy_decoder, metadata
from nemoport.quantize.precision import Precision

@dataclass(frozen=True)
class Parameters:
    bits: int = 32

def convert(parent, folder, parameters, calibration, progress):
    model = onnx.load(parent.encoder)
    save_model(model, folder / ENCODER, metadata(model))
    copy_decoder(parent, folder)

PRECISION = Precision(Parameters(), convert, needs_calibration=False)
"""
RUNTIME = """
from nemoport.interface import Interface
from nemoport.runtime import Runtime
from nemoport.runtimes.onnxruntime import graphs
from nemoport.runtimes.onnxruntime.session import OnnxSession

def open_artifact(artifact, provider="cpu", threads=0):
    return OnnxSession(artifact.spec, artifact.folder / "toy-encoder.onnx", artifact.folder / "toy-decoder.onnx")

def expected(artifact, spec):
    encoder, decoder = graphs.expected(artifact, spec).values()
    return {"toy-encoder.onnx": encoder, "toy-decoder.onnx": decoder}

def found(artifact):
    return {path.name: graphs.read_interface(path) for path in sorted(artifact.folder.glob("toy-*.onnx"))}

RUNTIME = Runtime("toy", "Toy", "toy", "onnxruntime", open_artifact, expected, found)
"""
TARGET = """
from dataclasses import dataclass
import onnx
from nemoport.export.target import Target

@dataclass(frozen=True)
class Parameters:
    layout: str = "nemo"

def convert(source, folder, parameters, progress):
    made = source.onnx(parameters.layout)
    roles = {"encoder": "toy-encoder.onnx", "decoder": "toy-decoder.onnx"}
    for graph, name in zip((made.encoder, made.decoder), roles.values()):
        onnx.save(onnx.load(graph), folder / name)
    return roles

TARGET = Target("toy", {"fp32": Parameters()}, convert)
"""
LAYOUT = """
from nemoport.package.layout import Layout
from nemoport.package.layouts import native

def lay_out(build, variants, folder):
    native.lay_out(build, variants, folder)
    (folder / "toy.txt").write_text("toy")

LAYOUT = Layout("toy", {"toy.txt": "a toy"}, lay_out, native.graphs, lambda facts: "Play with it.",
                artifact_folder=native.artifact_folder)
"""
GATE = """
def run(context):
    size = len(context.artifact.manifest.files)
    return [context.judge("toy", "", size, limit="max_files", unit="files", n=1)]
"""
HEAD = '''
from dataclasses import dataclass
from nemoport.heads import Head
from nemoport.heads.rnnt import HEAD as RNNT

class Mute:
    """Emits nothing."""
    tokens, token_frames, token_durations, token_confidences, n_final = [], [], [], [], 0

    @staticmethod
    def decode(session, frames, lengths, states):
        pass

HEAD = Head("mute", RNNT.interface, lambda spec, search, confidence: Mute())
'''
HEAD_GRAPH = "from nemoport.export.heads.rnnt import GRAPH\n"


@pytest.fixture
def tree(tmp_path):
    runpy.run_path(str(ROOT / ".ci" / "tree.py"))["link_tree"](tmp_path / "tree")
    return tmp_path / "tree" / "nemoport"


@pytest.fixture
def toy(tmp_path, build, tree):
    """A build folder with fp32, and a function that runs code with the tree's package."""
    import damage

    copy = damage.copy_build(build, tmp_path / "build")

    def run(code: str) -> dict:
        head = f"import json\nfrom pathlib import Path\nbuild, audio = Path({str(copy)!r}), Path({str(AUDIO)!r})\n"
        environment = {**os.environ, "PYTHONPATH": str(tree.parent), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-c", head + code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def add(path: Path, text: str) -> None:
    assert not path.exists() and path.parent.is_dir()
    path.write_text(text)


def edit(path: Path, change) -> None:
    """In the tree alone, where the file is a link to the real one."""
    text = path.read_text()
    path.unlink()
    path.write_text(changed := change(text))
    assert changed != text


def test_a_precision_is_one_file_and_a_table(tree, toy):
    add(tree / "quantize" / "toy_copy.py", PRECISION)
    edit(tree / "validate" / "gates.toml", lambda text: text + '\n[toy-copy]\nlike = "fp32"\n')
    found = toy(
        """
from nemoport.quantize import build_variant
from nemoport.validate.limits import limits_of
made = build_variant(build, "toy-copy", None, progress=print)
print(json.dumps([made.manifest.variant, made.manifest.recipe.parameters, limits_of("kv-toy-copy").required[0]]))
"""
    )
    assert found == ["toy-copy", {"bits": 32}, "contract"]


JUDGE = """
from types import SimpleNamespace
from nemoport.export.checkpoint import read_checkpoint
from nemoport.speech.corpus import read_corpus
from nemoport.validate import gates
from nemoport.validate.context import Context
from nemoport.validate.limits import limits_of
from dataclasses import replace
checkpoint = read_checkpoint({checkpoint!r})
corpus = read_corpus(audio / "eval.jsonl", 16000)
oracle = SimpleNamespace(digest="")
def judge(variant, gate):
    (result,) = gates.run_gate(gate, Context(build / variant, limits_of(variant), checkpoint, corpus, oracle, threads=1))
    return [result.passed, result.evidence]
"""


def test_a_runtime_is_two_modules_and_a_table(tree, toy):
    add(tree / "runtimes" / "toy.py", RUNTIME)
    add(tree / "export" / "targets" / "toy.py", TARGET)
    edit(tree / "validate" / "gates.toml", lambda text: text + '\n[toy-fp32]\ntarget = "toy"\nlike = "fp32"\n')
    found = toy(
        JUDGE.format(checkpoint=str(CHECKPOINT))
        + """
from nemoport.export.targets import export_target
from nemoport.recognizer import Recognizer
export_target(checkpoint, build, "toy", "fp32", progress=print)
path = corpus.utterances[0].path
texts = [Recognizer.open(build / name, threads=1).transcribe_file(path).text for name in ("fp32", "toy-fp32")]
passed = judge("toy-fp32", "contract")
(build / "toy-fp32" / "toy-decoder.onnx").write_bytes((build / "toy-fp32" / "toy-encoder.onnx").read_bytes())
print(json.dumps([texts, passed, judge("toy-fp32", "contract")]))
"""
    )
    (fp32, text), passed, damaged = found
    assert text == fp32 and text and passed == [True, ""] and damaged[0] is False


def test_a_layout_is_one_file(tree, toy):
    add(tree / "package" / "layouts" / "toy.py", LAYOUT)
    found = toy(
        """
from nemoport.package.assemble import package
from nemoport.package.verify import verify
from nemoport.validate.gate_result import PASS, GateResult, artifact_sha256
from nemoport.validate.result_store import results_path, write_results
result = GateResult("contract", "fp32", artifact_sha256(build / "fp32"), PASS, "", 0.0, 0.0, "problems", 1)
write_results(results_path(build, "fp32"), [result])
dist = package(build, build / "dist", ["fp32"], licence="apache-2.0", layout="toy", required_passes=lambda build, variant: [])
print(json.dumps([(dist / "toy.txt").read_text(), "Play with it." in (dist / "README.md").read_text(), len(verify(dist))]))
"""
    )
    assert found == ["toy", True, 3]


def test_a_gate_is_one_file_and_its_name(tree, toy):
    add(tree / "validate" / "gates" / "toy.py", GATE)

    def limits(text: str) -> str:
        name = '[fp32]\nrequired = ["contract",'
        assert name in text
        limit = '[fp32.toy]\nmax_files = 4\nreason = "graphs and weights"\n\n[fp16]\n'
        return text.replace(name, name.replace('"contract",', '"contract", "toy",')).replace("[fp16]\n", limit, 1)

    edit(tree / "validate" / "gates.toml", limits)
    found = toy(
        JUDGE.format(checkpoint=str(CHECKPOINT))
        + """
passed = judge("fp32", "toy")
manifest = json.loads((build / "fp32" / "manifest.json").read_text())
manifest["files"]["more"] = {**manifest["files"]["encoder"]}
(build / "fp32" / "manifest.json").write_text(json.dumps(manifest))
print(json.dumps(["toy" in limits_of("fp32").required, passed, judge("fp32", "toy")]))
"""
    )
    assert found == [True, [True, ""], [False, ""]]


def toy_checkpoint(path: Path, nemo_class: str) -> Path:
    """The committed one, named as of another class of NeMo's."""
    with tarfile.open(CHECKPOINT) as source, tarfile.open(path, "w") as target:
        for member in source.getmembers():
            content = source.extractfile(member)
            if member.name.endswith("model_config.yaml"):
                text = content.read().decode().replace("EncDecRNNTBPEModel", nemo_class)
                (path.parent / "config.yaml").write_text(text)
                target.add(path.parent / "config.yaml", member.name)
            elif member.isfile():
                target.addfile(member, content)
    return path


ADDED = "KINDS = (\n"


def test_a_kind_is_one_entry(tree, toy, tmp_path):
    entry = '    Kind("toy-rnnt", "ToyModel", _STREAMING_SECTIONS, streaming=True),\n'
    edit(tree / "export" / "kinds.py", lambda text: text.replace(ADDED, ADDED + entry))
    found = toy(
        f"""
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
checkpoint = read_checkpoint({str(toy_checkpoint(tmp_path / "toy.nemo", "ToyModel"))!r})
made = export_checkpoint(checkpoint, build.with_name("toy"))
print(json.dumps([made.spec.kind, made.spec.head, made.encoder.is_file()]))
"""
    )
    assert found == ["toy-rnnt", "rnnt", True]


def test_a_head_is_two_modules_and_the_kind(tree, toy, tmp_path):
    add(tree / "heads" / "mute.py", HEAD)
    add(tree / "export" / "heads" / "mute.py", HEAD_GRAPH)
    entry = '    Kind("streaming-mute", "MuteModel", _STREAMING_SECTIONS, streaming=True),\n'
    edit(tree / "export" / "kinds.py", lambda text: text.replace(ADDED, ADDED + entry))
    found = toy(
        f"""
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.recognizer import Recognizer
from nemoport.speech.corpus import read_corpus
path = read_corpus(audio / "eval.jsonl", 16000).utterances[0].path
checkpoint = read_checkpoint({str(toy_checkpoint(tmp_path / "mute.nemo", "MuteModel"))!r})
made = export_checkpoint(checkpoint, build.with_name("mute"))
texts = [Recognizer.open(folder, threads=1).transcribe_file(path).text for folder in (build / "fp32", made.folder)]
print(json.dumps([made.spec.kind, *texts]))
"""
    )
    kind, spoken, mute = found
    assert kind == "streaming-mute" and spoken and mute == ""
