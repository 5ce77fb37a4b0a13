"""Packages: only what passed, whole or not at all, the same bytes again; damage found; the card says what was measured."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import damage
import numpy as np
import pytest
import soundfile
import yaml

from nemoport import resources
from nemoport.artifact import Artifact, Manifest
from nemoport.errors import ArtifactError, NemoportError, OutputError, UsageError
from nemoport.files import write_json
from nemoport.package import assemble
from nemoport.package.assemble import package
from nemoport.package.copying import copy_file
from nemoport.package.hub import publish
from nemoport.package.manifest import PackageManifest
from nemoport.package.terms import resolve_terms
from nemoport.package.verify import verify
from nemoport.validate.gate_result import GateResult, artifact_sha256

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "reference" / "checkpoints" / "streaming-en.nemo"
NVIDIA = "nvidia/nemotron-speech-streaming-en-0.6b"
LOOKAHEADS = (0, 1, 6, 13)


def write_results(build: Path, variant: str) -> None:
    """Results as validate/ writes them, with figures that no other place of a package holds."""

    def result(gate, case, measured, unit="", n=1, interval=None, evidence=""):
        return GateResult(
            gate, variant, sha256, "pass", case, measured, None, unit, n, interval, evidence, oracle_digest="0" * 64
        )

    sha256 = artifact_sha256(build / variant)
    results = [result("contract", "", 0.0, "problems", 77)]
    for r in LOOKAHEADS:
        case = f"lookahead {r}"
        results += [
            result("tokens", f"{case}, full" if r else f"{case}, nemo", 1 - r / 160, n=160, evidence="private: secret words"),
            result("wer", f"{case}: difference", 0.1 * r, "WER points", 160, (-0.25, 0.1 * r + 0.5)),
            result("wer", f"{case}: WER", 17.17 + r, "%", 160),
            result("wer", f"{case}: NeMo's WER", 17.07 + r, "%", 160),
        ]
    results += [
        result("tokens", "all", 0.96875, n=640),
        result("tokens", "different", 57.0, n=640),
        result("wer", "all lookaheads: difference", 0.123, "WER points", 160, (-0.2, 0.45)),
        result("cost", "bytes", 20641696.0, "bytes", 4),
        result("cost", "speed", 31.4, "times real time", 12, evidence="lookahead 6, 61 s of audio, one stream"),
        result("cost", "peak memory", 271_828_182.0, "bytes", 12),
    ]
    path = build / "results" / f"{variant}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(r.to_dict()) + "\n" for r in results))


def add_variant(build: Path, name: str) -> None:
    """A second variant: fp32's graphs under another name."""
    shutil.copytree(build / "fp32", build / name)
    manifest = Manifest.read(build / "fp32")
    recipe = replace(manifest.recipe, variant=name, parent="fp32")
    replace(manifest, variant=name, recipe=recipe, recipe_digest=recipe.digest).write(build / name)
    write_results(build, name)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    from nemoport.export.build import export_checkpoint
    from nemoport.export.checkpoint import read_checkpoint

    build = tmp_path_factory.mktemp("builds") / "streaming-en"
    export_checkpoint(read_checkpoint(str(REFERENCE)), build)
    write_results(build, "fp32")
    return build


@pytest.fixture
def build(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "build" / "streaming-en")


def all_passed(build, variant):
    return []


def make(build: Path, dist: Path, variants=None, **options) -> Path:
    options = {"licence": "apache-2.0", "required_passes": all_passed} | options
    return package(build, dist, variants, **options)


@pytest.fixture(scope="module")
def packed(exported, tmp_path_factory):
    """A package of two variants; not to be changed."""
    folder = tmp_path_factory.mktemp("packed")
    build = shutil.copytree(exported, folder / "build" / "streaming-en")
    add_variant(build, "int8-dynamic")
    return make(build, folder / "dist")


@pytest.fixture
def damaged(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "damaged")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_layout_is_the_published_one(packed):
    graphs = ["encoder_model.onnx", "encoder_model.onnx.data", "decoder_model.onnx", "decoder_model.onnx.data"]
    shared = ["filterbank.bin", "filterbank.meta", "tokens.txt", "preprocessor.config", "tokenizer.model", "frontend.onnx"]
    wanted = ["README.md", "LICENSE", "manifest.json", "SHA256SUMS", "sbom.cdx.json", "config.json"]
    wanted += [f"shared/{name}" for name in shared]
    wanted += [f"{variant}/{name}" for variant in ("fp32", "int8-dynamic") for name in [*graphs, "manifest.json"]]
    assert sorted(contents(packed)) == sorted(wanted)
    assert not [path for path in packed.rglob("*") if path.is_symlink()]
    assert not [path for path in packed.parent.iterdir() if path.name.startswith(".")]
    assert (packed / "shared" / "filterbank.bin").stat().st_size == 1 * 128 * 257 * 4


def test_manifest_lists_everything(packed):
    manifest = PackageManifest.read(packed)
    files = contents(packed)
    assert {entry.path: entry.bytes for entry in manifest.files} == {
        path: len(content) for path, content in files.items() if path not in ("manifest.json", "SHA256SUMS")
    }
    assert manifest.checkpoint_sha256 == Artifact.open(packed / "fp32").manifest.checkpoint_sha256
    assert (manifest.name, manifest.licence, manifest.base_model, manifest.layout) == ("streaming-en", "apache-2.0", "", "native")
    assert {gate["gate"] for gate in manifest.variants["fp32"].gates} == {"contract", "tokens", "wer", "cost"}


def test_evaluation_audio_is_not_quoted(packed):
    assert not [path for path, content in contents(packed).items() if b"secret words" in content]


def test_same_inputs_give_the_same_bytes(build, tmp_path):
    first, second = make(build, tmp_path / "a"), make(build, tmp_path / "b" / "c")
    assert contents(first) == contents(second)


def test_the_same_package_is_left_and_another_refused(build, tmp_path):
    dist = make(build, tmp_path / "dist")
    before = contents(dist)
    assert contents(make(build, dist)) == before
    with pytest.raises(OutputError, match="exists already"):
        make(build, dist, licence="cc-by-4.0", licence_holder="someone")
    assert contents(dist) == before
    (dist / "extra").write_text("x")
    with pytest.raises(OutputError, match="exists already"):
        make(build, dist)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build", "dist"]


@pytest.mark.parametrize("what", ["file", "folder", "below a file"])
def test_output_in_the_way(build, tmp_path, what):
    dist = tmp_path / "dist"
    if what == "folder":
        dist.mkdir()
        (dist / "thesis.tex").write_text("precious")
    else:
        dist.write_text("precious")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(OutputError):
        make(build, dist / "below" if what == "below a file" else dist)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_packing_leaves_the_build_readable(build, tmp_path):
    """onnx refuses external data that has hard links, so a package must not be made of them."""
    import onnx

    dist = make(build, tmp_path / "dist")
    for folder in (build, dist):
        onnx.load(folder / "fp32" / "encoder_model.onnx")
        assert (folder / "fp32" / "encoder_model.onnx.data").stat().st_nlink == 1


def test_copy_of_any_size(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no copy_file_range here")

    content = np.random.default_rng(0).bytes(3_000_001)
    for size in (0, 1, 3_000_001):
        (tmp_path / "a").write_bytes(content[:size])
        copy_file(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == content[:size]
        with monkeypatch.context() as patch:
            patch.setattr(os, "copy_file_range", refuse)
            copy_file(tmp_path / "a", tmp_path / "c")
        assert (tmp_path / "c").read_bytes() == content[:size]


# Gates


def lacking(**gates):
    return lambda build, variant: gates.get(variant.replace("-", "_"), [])


def test_what_failed_is_left_out_by_default(build, tmp_path):
    add_variant(build, "int8-dynamic")
    dist = make(build, tmp_path / "dist", required_passes=lacking(int8_dynamic=["wer: failed"]))
    assert sorted(PackageManifest.read(dist).variants) == ["fp32"]
    assert not (dist / "int8-dynamic").exists()
    assert "int8-dynamic" not in (dist / "README.md").read_text()


def test_what_failed_is_refused_by_name(build, tmp_path):
    """All gates of all variants that were asked for are named."""
    add_variant(build, "int8-dynamic")
    refuse = lacking(int8_dynamic=["wer: failed", "tokens: missing"], fp32=["batch: failed"])
    with pytest.raises(ArtifactError) as caught:
        make(build, tmp_path / "dist", ["fp32", "int8-dynamic", "fp16"], required_passes=refuse)
    for part in ("fp32: batch: failed", "int8-dynamic: wer: failed, tokens: missing", "fp16: not built"):
        assert part in caught.value.found
    assert not (tmp_path / "dist").exists()


def test_nothing_passed(build, tmp_path):
    with pytest.raises(ArtifactError, match="fp32: wer"):
        make(build, tmp_path / "dist", required_passes=lacking(fp32=["wer"]))
    assert not (tmp_path / "dist").exists()


def test_too_little_room(build, tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "free_disk", lambda folder: 1 << 20)
    monkeypatch.setattr(assemble, "shares_blocks", lambda folder: False)
    with pytest.raises(OutputError, match="too little room on the disk for package"):
        make(build, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()
    monkeypatch.setattr(assemble, "shares_blocks", lambda folder: True)  # copies take no room
    make(build, tmp_path / "dist")


def test_nothing_validated(build, tmp_path):
    """With validate's own gates: a build without results has passed none."""
    shutil.rmtree(build / "results")
    with pytest.raises(ArtifactError, match="missing or failed: fp32: no gate results"):
        package(build, tmp_path / "dist", licence="apache-2.0")
    assert not (tmp_path / "dist").exists()


def test_one_failed_gate_of_validates_own(build, tmp_path):
    """Passes on all that gates.toml requires make a package; with one of them failed, or one missing, there is none."""
    from nemoport.validate.limits import limits_digest, limits_of
    from nemoport.validate.stamps import judge_digest, write_evaluation

    write_evaluation(build, "0" * 64, {"fp32": "cpu"})
    passed = GateResult("", "fp32", artifact_sha256(build / "fp32"), "pass", measured=1.0, n=1, limits_sha256=limits_digest())
    passed = replace(passed, oracle_digest="0" * 64, judge_digest=judge_digest("onnxruntime", "cpu"))

    def write(**status):
        results = [
            replace(passed, gate=gate, status=status.get(gate, "pass"))
            for gate in limits_of("fp32").required
            if status.get(gate) != "missing"
        ]
        lines = "".join(json.dumps(result.to_dict()) + "\n" for result in results)
        (build / "results" / "fp32.jsonl").write_text(lines)

    for status in ("fail", "missing"):
        for gate in limits_of("fp32").required:
            write(**{gate: status})
            with pytest.raises(ArtifactError, match=f"fp32: gate {gate} {'failed' if status == 'fail' else 'was not run'}"):
                package(build, tmp_path / "dist", licence="apache-2.0")
    write()
    assert sorted(PackageManifest.read(package(build, tmp_path / "dist", licence="apache-2.0")).variants) == ["fp32"]


def test_comparisons_are_never_packaged(build, tmp_path):
    add_variant(build, "int8-static-cold")
    assert sorted(PackageManifest.read(make(build, tmp_path / "a")).variants) == ["fp32"]
    with pytest.raises(ArtifactError, match="int8-static-cold: no variant for publication"):
        make(build, tmp_path / "b", ["int8-static-cold"])
    assert not (tmp_path / "b").exists()


BUILDS = {
    "changed after the gates": (lambda b: flip(b / "fp32" / "encoder_model.onnx.data"), "fp32"),
    "changed config": (lambda b: edit(b / "config.json", lambda c: c.update(x=1)), "fp32"),
    "results of another file": (lambda b: (b / "results/fp32.jsonl").write_text(results_of(b, sha256="0" * 64)), "other files"),
    "empty results": (lambda b: (b / "results/fp32.jsonl").write_text(""), "no results"),
    "no results": (lambda b: (b / "results/fp32.jsonl").unlink(), "no results"),
    "bad results": (lambda b: (b / "results/fp32.jsonl").write_text("{}\n"), "fp32.jsonl"),
    "other checkpoint": (
        lambda b: edit(b / "config.json", lambda c: c["checkpoint"].update(sha256="0" * 64)),
        "mixes checkpoints",
    ),
    "other variant": (lambda b: edit(b / "fp32/manifest.json", lambda m: m.update(variant="fp16")), "holds another variant"),
    "no shared file": (lambda b: (b / "shared/frontend.onnx").unlink(), "frontend.onnx"),
    "no graph": (lambda b: (b / "fp32/decoder_model.onnx").unlink(), "decoder_model.onnx"),
    "no config": (lambda b: (b / "config.json").unlink(), "config.json"),
    "nothing built": (lambda b: shutil.rmtree(b / "fp32"), "no variants"),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path, change) -> None:
    raw = json.loads(path.read_text())
    change(raw)
    write_json(path, raw)


def results_of(build: Path, **changes) -> str:
    lines = (build / "results" / "fp32.jsonl").read_text().splitlines()
    return "".join(json.dumps({**json.loads(line), **changes}) + "\n" for line in lines)


@pytest.mark.parametrize("name", BUILDS)
def test_build_that_cannot_be_packaged(build, tmp_path, name):
    change, message = BUILDS[name]
    change(build)
    with pytest.raises(ArtifactError, match=message) as caught:
        make(build, tmp_path / "dist")
    assert caught.value.expected and caught.value.found and caught.value.todo
    assert not (tmp_path / "dist").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


def test_unknown_layout(build, tmp_path):
    with pytest.raises(UsageError, match="native"):
        make(build, tmp_path / "dist", layout="sherpa")


# Licence


def test_licence_is_never_guessed(build, tmp_path):
    with pytest.raises(UsageError, match="not guessed"):
        make(build, tmp_path / "dist", licence=None)
    with pytest.raises(UsageError, match="not guessed"):
        resolve_terms("", base_model="someone/something")
    with pytest.raises(UsageError, match="nvidia-open-model-license is not known"):
        resolve_terms("", licence="nvidia-open-model-license")
    with pytest.raises(UsageError, match="asks to name the author"):
        resolve_terms("", licence="cc-by-4.0")
    with pytest.raises(UsageError, match="not the one that was exported"):
        resolve_terms(f"{NVIDIA}@abc", base_model="someone/else")
    with pytest.raises(UsageError, match="not named as the Hub names it"):
        resolve_terms("", base_model="my model", licence="apache-2.0")


def test_published_model_has_its_terms():
    terms = resolve_terms(f"{NVIDIA}@abc123")
    assert (terms.licence_id, terms.holder, terms.base_model, terms.revision) == ("cc-by-4.0", "NVIDIA", NVIDIA, "abc123")
    assert resolve_terms(f"{NVIDIA}@abc123", base_model=NVIDIA) == terms
    notice = terms.notice({"name": "x", "sha256": "f" * 64}, "ONNX", ["fp32", "fp16"])
    for part in ("Attribution 4.0", "weights: NVIDIA", NVIDIA, "abc123", "creativecommons", "f" * 64, "Changes", "fp32, fp16"):
        assert part in notice  # what CC BY 4.0 asks for: author, licence, origin, changes


def test_other_licence_needs_its_text():
    terms = resolve_terms("a/b", licence="nvidia-open-model-license", licence_url="https://example.org/licence")
    assert terms.licence.url == "https://example.org/licence"


def head_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_card_head_of_the_reference(packed):
    assert head_of(packed) == {
        "license": "apache-2.0",
        "pipeline_tag": "automatic-speech-recognition",
        "library_name": "onnx",
        "tags": ["onnx", "onnxruntime", "asr", "speech-recognition", "fastconformer", "nemoport", "streaming", "rnnt"],
    }


def test_card_head_of_a_published_model(build, tmp_path):
    add_variant(build, "fp16")
    head = head_of(make(build, tmp_path / "a", licence=None, base_model=f"{NVIDIA}@v1"))
    assert (head["base_model"], head["license"], head["language"]) == (NVIDIA, "cc-by-4.0", "en")
    assert head["base_model_relation"] == "quantized"
    options = dict(base_model="a/b", licence="open", licence_url="https://example.org/l", language="no")
    other = head_of(make(build, tmp_path / "b", ["fp32"], **options))
    assert (other["license"], other["license_name"], other["license_link"]) == ("other", "open", "https://example.org/l")
    assert other["language"] == "no"
    assert other["base_model_relation"] == "quantized"  # fp32 too: else the Hub calls a conversion a fine-tune


# Card


def rows_of(card: str, title: str) -> list[list[str]]:
    section = card.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def size_of(folder: Path) -> str:
    return f"{sum(e.bytes for e in Manifest.read(folder / 'fp32').files.values()) / 1e6:.1f} MB"


def test_card_figures_are_the_measured_ones(packed):
    card = (packed / "README.md").read_text()
    first, second = rows_of(card, "Variants")
    assert first == ["`fp32`", "4", size_of(packed), "+0.12 (-0.20 to +0.45)", "20 of 640", "57", "31.4", "272 MB"]
    assert second[0] == "`int8-dynamic`"
    accuracy = {(row[0], int(row[1])): row[2:] for row in rows_of(card, "Accuracy")}
    assert accuracy["`fp32`", 0] == ["80 ms", "17.17", "17.07", "+0.00 (-0.25 to +0.50)", "0 of 160"]
    assert accuracy["`fp32`", 13] == ["1120 ms", "30.17", "30.07", "+1.30 (-0.25 to +1.80)", "13 of 160"]
    assert len(accuracy) == 8
    assert rows_of(card, "What was measured")[0][2] == "lookahead 6, 61 s of audio, one stream"
    assert "not measured" not in card.split("## Limits")[0]


def test_card_windows_are_the_specs(packed):
    windows = {int(row[0]): row[1:] for row in rows_of((packed / "README.md").read_text(), "Chunks and caches")}
    assert windows[6] == ["560 ms", "49", "65 = 9 + 56", "7"]
    assert windows[0] == ["80 ms", "1", "17 = 9 + 8", "1"]


def test_card_says_what_was_not_measured(build, tmp_path):
    kept = [line for line in (build / "results/fp32.jsonl").read_text().splitlines() if '"contract"' in line]
    (build / "results/fp32.jsonl").write_text("\n".join(kept) + "\n")
    card = (make(build, tmp_path / "dist") / "README.md").read_text()
    assert rows_of(card, "Variants") == [["`fp32`", "4", size_of(build), *["not measured"] * 5]]
    assert {tuple(row[3:]) for row in rows_of(card, "Accuracy")} == {("not measured",) * 4}
    assert "Not measured: WER of `fp32`, memory of `fp32`, speed of `fp32`, token-exact share of `fp32`, tokens" in card


def test_card_of_other_figures_differs(build, tmp_path):
    """The card holds no figure of its own: with other results every measured cell changes."""
    before = (make(build, tmp_path / "a") / "README.md").read_text()
    lines = [json.loads(line) for line in (build / "results/fp32.jsonl").read_text().splitlines()]
    for line in lines:
        line["measured"] *= 0.5
        line["interval"] = line["interval"] and [value - 1 for value in line["interval"]]
    (build / "results/fp32.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    after = (make(build, tmp_path / "b") / "README.md").read_text()
    for title, columns in {"Variants": (3, 4, 5, 6, 7), "Accuracy": (3, 4, 5, 6)}.items():
        for old, new in zip(rows_of(before, title), rows_of(after, title), strict=True):
            assert all(old[column] != new[column] for column in columns)


# onnxruntime's threads wait for one another, for seconds where another process holds a core.
ONE_CORE = "import os\nhasattr(os, 'sched_setaffinity') and os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"


def test_code_of_the_card_runs(packed, tmp_path):
    """Its only Python block, as it stands there, in a process that has no nemoport: the tokens of nemoport's stream."""
    from nemoport.recognizer import Recognizer

    blocks = re.findall(r"```python\n(.*?)```", (packed / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1 and "nemoport" not in blocks[0]
    utterances = [ROOT / "reference" / "audio" / "eval" / f"{i:03}.flac" for i in (1, 3)]
    short = tmp_path / "short.wav"  # 600 ms: less than the first window of two lookaheads
    soundfile.write(short, soundfile.read(utterances[0])[0][:9600], 16000, subtype="FLOAT")
    cases = [(utterances[0], 0), (utterances[0], 1), (utterances[1], 6), (utterances[1], 13), (short, 0), (short, 13)]
    ours = {r: Recognizer.open(packed / "fp32", r, threads=1) for r in LOOKAHEADS}
    script = (
        ONE_CORE
        + blocks[0].split("if __name__")[0]
        + ("for audio, lookahead in json.load(sys.stdin):\n    print(json.dumps(transcribe('.', 'fp32', audio, lookahead)))\n")
    )
    assert "nemoport" not in script
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=packed,
        input=json.dumps([(str(audio), r) for audio, r in cases]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    transcribed = 0
    for (audio, lookahead), (tokens, text) in zip(cases, found, strict=True):
        hypothesis = ours[lookahead].transcribe_file(audio)
        assert (tuple(tokens), text) == (hypothesis.tokens, hypothesis.text), (audio.name, lookahead)
        transcribed += len(tokens)
    assert transcribed > 20


def test_command_of_the_card_runs(packed):
    """The last lines of the block too."""
    block = re.search(r"```python\n(.*?)```", (packed / "README.md").read_text(), re.DOTALL)[1]
    audio = ROOT / "reference" / "audio" / "eval" / "001.flac"
    command = [sys.executable, "-c", ONE_CORE + block, ".", "fp32", str(audio), "6"]
    done = subprocess.run(command, cwd=packed, capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.split()) > 2, done.stderr


# Verify


def test_verify_says_what_it_checked(packed):
    lines = verify(packed)
    assert len(lines) == 4
    assert "20 files" in lines[1] and "fp32: loads in onnxruntime" in lines[2] and lines[3].startswith("int8-dynamic: ")


def test_verify_needs_neither_torch_nor_onnx(packed):
    code = (
        "import sys, pathlib\n"
        "from nemoport.package.verify import verify\n"
        "verify(pathlib.Path('.'))\n"
        "heavy = {'torch', 'nemo', 'onnx', 'huggingface_hub', 'yaml'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=packed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_verify_of_a_part(damaged):
    """As after a download of one precision, in the place where the Hub's client keeps its own files."""
    shutil.rmtree(damaged / "int8-dynamic")
    (damaged / ".gitattributes").write_text("*.onnx filter=lfs diff=lfs merge=lfs -text\n")
    records = damaged / ".cache" / "huggingface" / "download" / "fp32"
    records.mkdir(parents=True)
    (records.parent.parent / ".gitignore").write_text("*")
    (records / "encoder_model.onnx.metadata").write_text("x")
    assert "15 files" in verify(damaged, ["fp32"])[1]
    with pytest.raises(ArtifactError, match="int8-dynamic/encoder_model.onnx: missing"):
        verify(damaged)
    with pytest.raises(UsageError, match="no variant fp16"):
        verify(damaged, ["fp16"])


def reseal(folder: Path, path: str) -> None:
    """Writes the changed file's hash into the manifest, as one would who wants it to pass."""
    from nemoport.package.manifest import hash_files

    replace(PackageManifest.read(folder), files=hash_files(folder)).write(folder)


def no_graph(folder: Path) -> None:
    (folder / "fp32" / "encoder_model.onnx").write_bytes(b"not a graph")
    edit_entry(folder, "encoder_model.onnx")


def nan_weights(folder: Path) -> None:
    path = folder / "fp32" / "decoder_model.onnx.data"
    path.write_bytes(np.full(path.stat().st_size // 4, np.nan, np.float32).tobytes())
    edit_entry(folder, "decoder_model.onnx.data")


def nan_in_the_lstm(folder: Path) -> None:
    """Of which no output of the decoder shows anything."""
    damage.nan_in_the_lstm(folder / "fp32" / "decoder_model.onnx")
    edit_entry(folder, "decoder_model.onnx.data")


def edit_entry(folder: Path, name: str) -> None:
    """Makes both manifests agree with a changed file, so that only running it can tell."""
    from nemoport.artifact import file_entries

    variant = folder / "fp32"
    manifest = Manifest.read(variant)
    roles = {role: entry.path for role, entry in manifest.files.items()}
    changed = replace(manifest, files=file_entries(variant, roles))
    changed.write(variant)
    raw = json.loads((folder / "manifest.json").read_text())
    raw["variants"]["fp32"]["digest"] = changed.digest
    rewrite(folder, raw)
    reseal(folder, name)


def rewrite(folder: Path, raw: dict) -> None:
    from nemoport.files import digest_json

    raw.pop("digest", None)
    write_json(folder / "manifest.json", {**raw, "digest": digest_json(raw)})
    PackageManifest.read(folder).write(folder)  # and SHA256SUMS


def other_variant(folder: Path) -> None:
    edit(folder / "fp32" / "manifest.json", lambda m: m.update(parent_digest="0" * 64))
    reseal(folder, "fp32/manifest.json")


DAMAGE = {
    "flipped byte": (lambda f: flip(f / "fp32/encoder_model.onnx.data"), "encoder_model.onnx.data: content differs"),
    "flipped byte in the card": (lambda f: flip(f / "README.md"), "README.md: content differs"),
    "truncated sidecar": (lambda f: os.truncate(f / "fp32/encoder_model.onnx.data", 1000), "1000 bytes, expected"),
    "missing file": (lambda f: (f / "shared/tokens.txt").unlink(), "shared/tokens.txt: missing"),
    "missing variant": (lambda f: shutil.rmtree(f / "fp32"), "fp32/decoder_model.onnx: missing"),
    "extra file": (lambda f: (f / "fp32/more.onnx").write_text("x"), "fp32/more.onnx: not in the manifest"),
    "extra hidden file": (lambda f: (f / ".hidden").write_text("x"), ".hidden: not in the manifest"),
    "folder for a file": (lambda f: ((f / "LICENSE").unlink(), (f / "LICENSE").mkdir()), "LICENSE: missing"),
    "dangling link": (lambda f: (f / "link").symlink_to("nowhere"), "link: not in the manifest"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
    "manifest not JSON": (lambda f: (f / "manifest.json").write_text("{"), "is not JSON"),
    "manifest of a variant": (lambda f: shutil.copy(f / "fp32/manifest.json", f / "manifest.json"), "no name"),
    "edited figure": (
        lambda f: edit(f / "manifest.json", lambda m: m["variants"]["fp32"]["gates"][0].update(measured=0.5)),
        "is damaged, or not of a package",
    ),
    "edited licence": (lambda f: edit(f / "manifest.json", lambda m: m.update(licence="mit")), "is damaged, or not"),
    "edited hash": (lambda f: edit(f / "manifest.json", lambda m: m["files"][0].update(sha256="0" * 64)), "is damaged, or not"),
    "file taken off the list": (lambda f: edit(f / "manifest.json", lambda m: m["files"].pop()), "is damaged, or not"),
    "schema": (lambda f: edit(f / "manifest.json", lambda m: m.update(schema=2)), "schema: Input should be 1"),
    "variant of other inputs": (other_variant, "is not the variant that the package was made with"),
    "no graph": (no_graph, "cannot be loaded"),
    "NaN weights": (nan_weights, "values that are not finite"),
    "NaN in an LSTM weight": (nan_in_the_lstm, "decoder_model.onnx has weights with values that are not finite"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_package_is_rejected(damaged, name):
    damage, message = DAMAGE[name]
    damage(damaged)
    with pytest.raises(ArtifactError, match=re.escape(message)) as caught:
        verify(damaged)
    assert caught.value.what and caught.value.expected and caught.value.found and caught.value.todo


def test_all_damage_is_named_at_once(damaged):
    (damaged / "LICENSE").unlink()
    (damaged / "new").write_text("x")
    flip(damaged / "fp32" / "decoder_model.onnx")
    with pytest.raises(ArtifactError) as caught:
        verify(damaged)
    assert [part.split(":")[0] for part in caught.value.found.split("; ")] == ["LICENSE", "new", "fp32/decoder_model.onnx"]


@pytest.mark.parametrize("path", ["nothing", "manifest.json"])
def test_verify_of_no_folder(damaged, path):
    with pytest.raises(NemoportError):
        verify(damaged / path)


# Publish


class FakeApi:
    """Stands for huggingface_hub.HfApi; remembers what it was asked."""

    def __init__(self, earlier=None, fails=None):
        self.calls, self._earlier, self._fails = [], earlier, fails

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            if name == self._fails:
                raise RuntimeError("403 Forbidden\nmore")
            if name == "hf_hub_download":
                if self._earlier is None:
                    raise RuntimeError("404")
                return str(self._earlier)
            return "https://huggingface.co/someone/model/commit/1"

        return call

    def names(self):
        return [name for name, _, _ in self.calls]


@pytest.fixture(autouse=True)
def no_token(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)


def test_dry_run_without_a_token(packed):
    api = FakeApi()
    lines = publish(packed, "someone/model", api=api)
    assert api.calls == []
    text = "\n".join(lines)
    for part in ("someone/model, created as a public model", "Branch: main", "Licence: apache-2.0", "no token", "HF_TOKEN"):
        assert part in text
    for path, content in contents(packed).items():
        assert re.search(rf"{len(content):,}  {re.escape(path)}$", text, re.MULTILINE), path


def test_dry_run_with_a_token(packed):
    api = FakeApi()
    assert publish(packed, "someone/model", dry_run=True, token="hf_x", api=api)[-1] == "Nothing was uploaded: dry run."
    assert api.calls == []


def test_token_of_the_machine_is_used(packed, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_stored")
    api = FakeApi()
    publish(packed, "someone/model", api=api)
    assert {options["token"] for _, _, options in api.calls} == {"hf_stored"}


def test_upload(packed, tmp_path):
    api = FakeApi()
    lines = publish(packed, "someone/model", token="hf_secret", private=True, revision="v2", api=api)
    assert api.names() == ["create_repo", "create_branch", "hf_hub_download", "upload_folder"]
    assert api.calls[0][2]["private"] is True and api.calls[0][2]["exist_ok"] is True
    upload = api.calls[-1][2]
    assert (upload["repo_id"], upload["folder_path"], upload["revision"]) == ("someone/model", packed, "v2")
    assert sorted(upload["allow_patterns"]) == sorted(contents(packed))
    assert upload["delete_patterns"] == []
    assert lines[-1] == "Uploaded: https://huggingface.co/someone/model/commit/1"
    assert "hf_secret" not in "\n".join(lines)


def test_upload_fits_the_installed_client(packed):
    """The calls that the fake accepted are ones that huggingface_hub has, with these options."""
    import inspect

    from huggingface_hub import HfApi

    api = FakeApi()
    publish(packed, "someone/model", token="hf_x", revision="v2", api=api)
    for name, arguments, options in api.calls:
        inspect.signature(getattr(HfApi, name)).bind(None, *arguments, **options)


def test_upload_removes_what_an_earlier_package_had(packed, tmp_path):
    """And nothing else: what others put into the repository stays."""
    raw = json.loads((packed / "manifest.json").read_text())
    raw["files"] += [{"path": path, "bytes": 1, "sha256": "0"} for path in ("int4/encoder_model.onnx", "*", "a/[b]")]
    (tmp_path / "manifest.json").write_text(json.dumps(raw))
    api = FakeApi(earlier=tmp_path / "manifest.json")
    publish(packed, "someone/model", token="hf_x", api=api)
    assert api.calls[-1][2]["delete_patterns"] == ["int4/encoder_model.onnx", "model.sig"]


@pytest.mark.parametrize("call", ["create_repo", "upload_folder"])
def test_refused_upload(packed, call):
    with pytest.raises(OutputError, match="403 Forbidden") as caught:
        publish(packed, "someone/model", token="hf_secret", api=FakeApi(fails=call))
    assert "hf_secret" not in str(caught.value)


def test_damaged_package_is_not_published(damaged):
    flip(damaged / "fp32" / "encoder_model.onnx.data")
    api = FakeApi()
    with pytest.raises(ArtifactError, match="damaged"):
        publish(damaged, "someone/model", token="hf_x", api=api)
    assert api.calls == []


@pytest.mark.parametrize("repo", ["", "model", "a/b/c", "a/b@main", "https://huggingface.co/a/b", "../b", "a b/c"])
def test_bad_repository(packed, repo):
    with pytest.raises(UsageError, match="not the id of a Hub repository"):
        publish(packed, repo, token="hf_x", api=FakeApi())


def test_verify_shows_how_far_it_is(packed):
    seen = []
    verify(packed, progress=seen.append)
    hashed = [one for one in seen if one.name == "verify: hashing"]
    assert hashed[-1].ended and not hashed[0].ended
    assert hashed[-1].total == sum(entry.bytes for entry in PackageManifest.read(packed).files) / 1e6
    assert {"fp32: running", "verify: weights"} <= {one.name for one in seen if one.ended}
