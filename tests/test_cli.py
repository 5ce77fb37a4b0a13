"""The command line: every subcommand is listed and has help, old flags parse, and --help imports no heavy package."""

import json
import pkgutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemoport import cli
from nemoport.cli import COMMANDS, main, parser

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "reference" / "checkpoints"
NOT_COMMANDS = {"__main__", "command", "live", "options", "output", "progress"}
EXPORT = ("export", "--checkpoint", "a.nemo", "--build", "build")


def printed(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments])
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_subcommand_has_help(capsys, command):
    assert command.help.strip() and not any(word in command.help for word in ("such as", "e.g.", "for example"))
    shown = " ".join(printed(capsys, command.name, "--help").split())
    assert shown.startswith(f"usage: nemoport {command.name} ") and command.help in shown
    assert all(flag in shown for option in command.options for flag in option.flags)


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"nemoport {version('nemoport')}\n"


def test_every_module_of_a_subcommand_is_listed_once(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    modules = {module.name for module in pkgutil.iter_modules(cli.__path__)} - NOT_COMMANDS
    lines = printed(capsys, "--help").split("COMMAND\n")[1].split("\n\n")[0].splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("    ") and not line.startswith("     ")]
    assert listed == [command.name for command in COMMANDS]
    assert sorted(listed) == sorted(modules)


def test_the_help_has_plain_words():
    texts = [command.help for command in COMMANDS]
    texts += [option.settings.get("help", "") for command in COMMANDS for option in command.options]
    words = {word.strip(".,;:") for text in texts for word in text.lower().split()}
    assert not words & {"hear", "hears", "heard", "tell", "tells", "told", "say", "says", "said"}


def test_an_unknown_subcommand_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["transmogrify"])
    assert stopped.value.code == 2 and "transmogrify" in capsys.readouterr().err


@pytest.mark.parametrize(
    "order", ["dist --language de a.wav b.wav", "dist a.wav b.wav --language de", "--language de dist a.wav b.wav"]
)
def test_options_may_stand_between_arguments(order):
    found = parser().parse_args(["transcribe", *order.split()])
    assert (found.artifact, found.audio, found.language) == ("dist", ["a.wav", "b.wav"], "de")
    assert parser().parse_args(["transcribe", "dist", "--json"]).audio == []


def test_arguments_that_are_missing_or_too_many_are_refused(capsys):
    for wrong in (["transcribe"], ["verify"], ["verify", "a", "b"], ["quantize", "--build", "b"]):
        with pytest.raises(SystemExit) as stopped:
            main(wrong)
        assert stopped.value.code == 2 and capsys.readouterr().err.startswith("usage: nemoport")


def test_contract_is_another_name_of_caches():
    new, old = (parser().parse_args([*EXPORT, flag, "kv"]) for flag in ("--caches", "--contract"))
    assert new == old and new.caches == "kv"
    assert parser().parse_args(EXPORT).caches == "nemo"


def test_caches_that_do_not_exist_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*EXPORT, "--caches", "both"])
    assert stopped.value.code == 2 and "--caches/--contract" in capsys.readouterr().err


@pytest.mark.parametrize("target, precision", [("onnx", "fp32"), ("coreai", "fp16")])
def test_export_hands_every_target_its_options(capsys, monkeypatch, reference_checkpoint, target, precision):
    calls = []

    def export_target(*arguments, caches, progress):
        calls.append((*arguments, caches))
        return SimpleNamespace(folder=Path("made"))

    monkeypatch.setattr("nemoport.export.targets.export_target", export_target)
    chosen = [] if target == "onnx" else ["--target", target, "--precision", precision]
    assert main(["export", "--checkpoint", str(reference_checkpoint.path), "--build", "b", "--caches", "kv", *chosen]) == 0
    assert calls == [(reference_checkpoint, Path("b"), target, precision, None, "kv")]
    assert capsys.readouterr().out == "made\n"


@pytest.mark.parametrize(
    "name, kind",
    [("streaming-en", "streaming-rnnt"), ("streaming-multilingual", "streaming-prompt-rnnt"), ("offline-tdt", "offline-tdt")],
)
def test_kind(capsys, name, kind):
    checkpoint = str(CHECKPOINTS / f"{name}.nemo")
    assert main(["kind", checkpoint]) == 0 and capsys.readouterr().out == f"{kind}\n"
    assert main(["kind", checkpoint, "--json"]) == 0 and json.loads(capsys.readouterr().out) == {"kind": kind}


def test_unusable_input_is_exit_code_2(capsys, tmp_path):
    assert main(["kind", str(tmp_path / "absent.nemo")]) == 2
    assert capsys.readouterr().err.startswith("nemoport: ")


@pytest.mark.parametrize("given", [(), ("--corpus", "a.jsonl", "--dataset", "google/fleurs")], ids=["neither", "both"])
def test_validate_needs_one_evaluation_set(capsys, request, given):
    assert main(["validate", "--checkpoint", "absent.nemo", "--build", "build", *given]) == 2
    assert request.node.callspec.id in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    """`python -m nemoport.cli --help`, with a look at what it has imported."""
    program = (
        "import runpy, sys\n"
        "try:\n"
        "    runpy.run_module('nemoport.cli', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stopped:\n"
        "    print(stopped.code, *sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    shown, _, last = done.stdout.rstrip("\n").rpartition("\n")
    code, *modules = last.split()
    assert code == "0" and shown.startswith("usage: nemoport ")
    assert "nemoport.cli.transcribe" in modules
    assert not {"torch", "nemo", "onnx", "onnxruntime", "openvino", "numpy"} & set(modules)


def test_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "nemoport.cli", "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.startswith("usage: nemoport ")


def test_a_fault_is_not_the_verdict_of_a_gate(capsys, monkeypatch):
    """Python ends a traceback with 1, by which `make validate` means that a gate failed."""

    def run(options):
        raise KeyError("within")

    monkeypatch.setattr(cli, "parser", lambda: SimpleNamespace(parse_args=lambda arguments: SimpleNamespace(run=run, quiet=True)))
    assert main(["export"]) == 3
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "within" in shown and "a fault of nemoport itself (KeyError)" in shown
