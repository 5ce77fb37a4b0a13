"""The command line: every subcommand is listed and has help, old flags parse, and --help imports no heavy package."""

import ast
import json
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemoport import cli
from nemoport.cli import COMMANDS, main, parser
from nemoport.cli.command import Names
from nemoport.text import columns

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "reference" / "checkpoints"
NOT_COMMANDS = {"__main__", "command", "live", "options", "output", "parser", "progress", "registries"}
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

    def export_target(*arguments, caches, windows_s, progress):
        calls.append((*arguments, caches))
        assert not windows_s
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

    monkeypatch.setattr(
        cli, "parser", lambda: SimpleNamespace(parse_args=lambda arguments: SimpleNamespace(run=run, quiet=True, extras=""))
    )
    assert main(["export"]) == 3
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "within" in shown and "a fault of nemoport itself (KeyError)" in shown


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_examples_parse(command):
    assert command.examples
    for line in command.examples:
        words = shlex.split(line.rpartition("| ")[2].partition(" > ")[0])
        assert words[:2] == ["nemoport", command.name]
        assert parser().parse_args(words[1:]).run is command.run


NAMED = {
    "run": "int4-mixed",
    "evaluate": "whisper-english",
    "quantize": "kv-int8-weight",
    "export": "litert",
    "package": "sherpa-onnx",
    "transcribe": "max_prob",
}


@pytest.mark.parametrize("name", NAMED)
def test_names_in_the_help_are_those_of_the_registries(capsys, name):
    command = next(one for one in COMMANDS if one.name == name)
    shown = " ".join(printed(capsys, name, "--help").split())
    assert all(str(option.names) in shown for option in command.options if option.names) and NAMED[name] in shown


def test_names_of_packages_that_are_not_installed():
    def read():
        raise ImportError("no torch")

    assert "not installed" in str(Names(read)) and list(Names(read)) == []


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", ["", *(command.name for command in COMMANDS)])
def test_the_help_fits_the_terminal(capsys, monkeypatch, columns, name):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = printed(capsys, *filter(None, [name]), "--help").split("examples:")[0].splitlines()
    assert max(map(len, lines)) <= columns + 4  # a set of choices is not broken


@pytest.mark.parametrize("environment, coloured", [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_of_the_help(monkeypatch, environment, coloured):
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "FORCE_COLOR": "1", **environment}.items():
        monkeypatch.setenv(name, value)
    shown = parser().format_help()
    assert bool(re.search("\x1b\\[(3|9)", shown)) == coloured


def test_a_missing_package_names_the_extra(capsys, monkeypatch):
    def run(options):
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")

    options = SimpleNamespace(run=run, quiet=True, extras="export")
    monkeypatch.setattr(cli, "parser", lambda: SimpleNamespace(parse_args=lambda arguments: options))
    assert main(["export"]) == 2
    assert "pip install 'nemoport[export]'" in capsys.readouterr().err
    options.extras = ""
    assert main(["export"]) == 3  # a fault of nemoport, which needs it without an extra


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(capsys, shell):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in ("transcribe", "--hotword", "int8-smoothquant", "sherpa-onnx", "entropy_tsallis_exp"))


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_a_command(capsys, tmp_path):
    main(["completion", "bash"])
    script = tmp_path / "nemoport.bash"
    script.write_text(capsys.readouterr().out)
    typed = 'COMP_WORDS=(nemoport tran); COMP_CWORD=1; COMP_LINE="nemoport tran"; _shtab_nemoport; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"source {script}; {typed}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["transcribe"]


def test_errors_have_no_words_of_the_makefile():
    """Who installed the package has no Makefile, and no CORPUS."""
    folders = ("nemoport", "export", "quantize", "distill", "calibration", "validate", "package")
    words = ("CHECKPOINT", "CORPUS", "CALIBRATION", "BUILD", "DIST", "`make ")
    found = []
    for path in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg in ("todo", "expected", "found"):
                text = ast.unparse(node.value)
                found += [f"{path.name}: {text}" for word in words if word in text and "clone" not in text]
    assert found == []


def test_columns_of_a_table():
    rows = [("a", "", "bb", "c"), ("aaa", "", "b", "")]
    assert columns(rows) == ["a    bb  c", "aaa  b"]
    assert columns(rows, right=True) == ["a    bb  c", "aaa   b"]
    assert columns([("a", "b", "c"), ("a", "b", "cc")], right=True)[0] == "a  b   c"
