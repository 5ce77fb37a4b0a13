"""Documents: each command block runs, or says why not; each option, target, extra and name in it exists; each link leads."""

import argparse
import ast
import contextlib
import importlib
import io
import json
import math
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from documents import OTHERS, ROOT, RUN, Block, anchors, blocks, documents, links, read

from nemoport.cli import main, parser

SITE = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
MATRIX = runpy.run_path(str(ROOT / "docs" / "support_matrix.py"))
PAGES, ALL = documents(*RUN), documents(*RUN, *OTHERS)
BLOCKS = [block for document in ALL for block in blocks(document)]
SHELL = [block for block in BLOCKS if block.language == "sh"]
LANGUAGES = {"sh", "python", "json", "jsonl", "text", "toml", "cpp", "kotlin", "swift"}
RUNNABLE = LANGUAGES - {"cpp", "kotlin", "swift"}
# Commands besides nemoport, make, pip and python. `verified` by running them where the block runs.
PROGRAMS = {"arecord", "cd", "curl", "ffmpeg", "git", "g++", "grep", "openssl", "ray", "sha256sum", "uvicorn", "ls"}


def ids(block: Block) -> str:
    return block.name


# Forms: no block is run here


def test_blocks_have_a_language_and_comments_are_known():
    assert [block.name for block in BLOCKS if block.language not in LANGUAGES] == []
    assert len(SHELL) > 20 and len([block for block in BLOCKS if block.language == "python"]) > 10
    for document in ALL:
        assert read(document).count("\n```") == 2 * len(blocks(document)), f"{document}: a block is not seen"
        told = [one for one in re.findall(r"^<!-- (.*?) -->", read(document), re.MULTILINE) if "matrix" not in one]
        assert len(told) == sum(len(block.told) for block in blocks(document)), f"{document}: a comment above no block: {told}"
    for block in BLOCKS:
        assert block.language in RUNNABLE or "not run" in block.told, f"{block.name}: is not run, and does not say why"
        assert len(block.told.get("not run", "a reason of words")) > 10, f"{block.name}: without a reason"
        assert not block.told.get("slow"), block.name


def words(line: str) -> list[list[str]]:
    """The words of each command of a line, without redirections."""
    parts: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word in ("|", "&&", ";", "||", "&"):
            parts.append([])
        else:
            parts[-1].append(word.removesuffix(";"))
            if word.endswith(";"):
                parts.append([])
    return [part[: part.index(">")] if ">" in part else part for part in parts if part]


def parsed(command: list[str]) -> argparse.Namespace:
    """The options of a nemoport command. Raises ValueError for a command or option that does not exist."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parser().parse_args(command[1:])
    except SystemExit as stopped:
        if stopped.code == 0:  # --help, --version
            return argparse.Namespace()
        raise ValueError(f"{shlex.join(command)}: {said.getvalue()}") from stopped


def targets_of_make() -> set[str]:
    return set(re.findall(r"^([\w%-]+(?: [\w%-]+)*):(?!=)", read("Makefile"), re.MULTILINE))


def check_make(command: list[str]) -> None:
    makefile = read("Makefile")
    known = {name for names in targets_of_make() for name in names.split()}
    patterns = [name for name in known if "%" in name]
    variables = set(re.findall(r"^([A-Z_]+)\s*\??:?=", makefile, re.MULTILINE)) | {"CONTRACT"}
    for word in command[1:]:
        name, equals, _ = word.partition("=")
        if equals:
            assert name in variables, f"make has no variable {name}"
        else:
            fits = any(re.fullmatch(pattern.replace("%", ".+"), word) for pattern in patterns)
            assert word in known or fits, f"make has no target {word}"
    for target in command[1:]:
        if target.startswith("quantize-"):
            from nemoport.quantize import precisions

            assert target.removeprefix("quantize-") in precisions(), target


def check_pip(command: list[str]) -> None:
    extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    assert command[1] == "install"
    for word in command[2:]:
        if found := re.fullmatch(r"(?:nemoport|\.)\[([\w,]+)\](?: @ git\+https://\S+)?", word):
            assert set(found[1].split(",")) <= set(extras), f"no such extra: {word}"
        elif word.endswith(".txt"):
            assert (ROOT / word).is_file(), word


def check_python(command: list[str]) -> None:
    at = next((n for n, word in enumerate(command) if n and not word.startswith("-")), None)
    if command[1:2] == ["-m"]:
        module = command[2]
        if module.startswith("nemoport"):
            assert importlib.util.find_spec(module), module
    elif at is not None:
        assert (ROOT / command[at]).is_file(), f"no such file: {command[at]}"


def check(command: list[str]) -> None:
    """Raises AssertionError or ValueError for a command that does not exist as it is written."""
    while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
        command = command[1:]
    program = Path(command[0]).name
    if program == "nemoport":
        parsed(command)
    elif program == "make":
        check_make(command)
    elif program in ("pip", "pip3"):
        check_pip(command)
    elif program in ("python", "python3", "pytest"):
        check_python(command) if program != "pytest" else None
    else:
        assert program in PROGRAMS or (ROOT / command[0]).is_file() or command[0].startswith("./"), f"not known: {command[0]}"


@pytest.mark.parametrize("block", SHELL, ids=ids)
def test_commands_exist_as_they_are_written(block):
    for line in block.commands:
        for command in words(line):
            check(command)


INLINE = re.compile(r"`((?:nemoport|make) [^`]+)`")


@pytest.mark.parametrize("document", PAGES)
def test_commands_within_sentences_exist(document):
    """`nemoport X --option` and `make X` in running text: the names; what is left open, as `...`, is passed over."""
    options = {name: set(one._option_string_actions) for name, one in commands().items()}
    targets = {name for names in targets_of_make() for name in names.split()}
    for text in INLINE.findall(read(document)):
        program, name, *rest = text.split()
        if program == "make":
            name = name if "=" not in name else "export"
            assert name in targets or name.startswith("quantize-"), text
        elif re.fullmatch(r"[a-z]+", name):
            assert name in options, text
            assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= options[name], text


def commands() -> dict[str, argparse.ArgumentParser]:
    return next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)).choices


BAD = {
    "an option that does not exist": "nemoport transcribe dist/a talk.flac --lookbehind 3",
    "a command that was renamed": "nemoport recognise dist/a talk.flac",
    "a choice that does not exist": "nemoport transcribe dist/a talk.flac --format docx",
    "a target of make": "make exprot",
    "a precision": "make quantize-int9",
    "a variable of make": "make export TARGT=openvino",
    "an extra": "pip install 'nemoport[exprot]'",
    "a file of pip": "pip install -r requirements-usage.txt",
    "a script": "python examples/absent.py",
    "a module": "python -m nemoport.absent",
    "a program": "frobnicate talk.flac",
    "behind a pipe": "arecord -t raw | nemoport transcribe dist/a - --paws 1",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_command_that_does_not_exist_is_found(kind):
    with pytest.raises((AssertionError, ValueError, ImportError)):
        for command in words(BAD[kind]):
            check(command)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=ids)
def test_python_compiles_and_names_what_exists(block):
    for node in ast.walk(compile(block.text, block.name, "exec", ast.PyCF_ONLY_AST)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nemoport"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), f"{block.name}: {ast.unparse(node)}"
        if isinstance(node, ast.Import):
            assert all(importlib.util.find_spec(alias.name) for alias in node.names), f"{block.name}: {ast.unparse(node)}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in ("json", "jsonl", "toml")], ids=ids)
def test_data_can_be_read(block):
    if block.language == "toml":
        tomllib.loads(block.text)
    else:
        for text in block.text.splitlines() if block.language == "jsonl" else [block.text]:
            json.loads(text)


# Links


def link_problems(document: str) -> list[str]:
    """What is wrong with the links of a document, which lead to files, to anchors or to the web."""
    problems = []
    made = {f"docs/{page}": make() for page, make in SITE["MADE"].items()}
    for target in links(document):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            if not re.fullmatch(r"https://[\w.-]+\.[a-z]+(?:/[^\s]*)?|mailto:\S+@\S+", target):
                problems.append(f"{target}: not an address")
            continue
        file = (ROOT / document).parent / path if path else ROOT / document
        name = os.path.relpath(file, ROOT)
        if name not in made and not file.exists():
            problems.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(made[name] if name in made else file.read_text(encoding="utf-8")):
            problems.append(f"{target}: no such heading")
    return problems


@pytest.mark.parametrize("document", ALL)
def test_links_lead_somewhere(document):
    assert link_problems(document) == []


@pytest.mark.parametrize("target", ["absent.md", "index.md#absent", "#absent", "http:/example.org", "ftp://x.org/a"])
def test_a_link_that_leads_nowhere_is_found(tmp_path, monkeypatch, target):
    monkeypatch.setitem(globals(), "links", lambda document: [target])
    assert len(link_problems("docs/index.md")) == 1


# The site


def test_pages_made_of_the_code_name_every_command_and_schema():
    cli, schemas = SITE["MADE"]["reference/cli.md"](), SITE["MADE"]["reference/schemas.md"]()
    for name, one in commands().items():
        section = cli.split(f"## nemoport {name}\n")[1].split("\n## ")[0]
        flags = {flag for action in one._actions for flag in action.option_strings if action.help != argparse.SUPPRESS}
        assert all(f"`{flag}" in section for flag in flags - {"-h", "--help"}), name
    assert "\x1b" not in cli and all(f"/{path.name})" in schemas for path in (ROOT / "docs" / "schemas").iterdir())


def test_names_of_a_docstring_are_items():
    pytest.importorskip("griffe")
    listed = runpy.run_path(str(ROOT / "docs" / "docstrings.py"))["listed"]
    text = "Opens it.\n\nfolder: where it\n    is, as in: here. flush, pass_s: two. Raises A; B.\n\nfolder is said."
    items = "Opens it.\n\n- `folder`: where it is, as in: here.\n- `flush, pass_s`: two.\n\nRaises A; B.\n\nfolder is said."
    assert listed(text, ["folder", "flush", "pass_s"]) == items and listed(text, []) == text


def test_every_page_is_in_the_menu():
    nav = re.findall(r"[\w/.-]+\.md", read("mkdocs.yml").split("\nnav:")[1])
    pages = {page for page in (*SITE["pages"](), *SITE["MADE"]) if page.endswith(".md")}
    assert sorted(nav) == sorted(pages)


def test_the_picture_of_the_terminal_is_of_a_command_that_exists():
    picture = read("docs/images/terminal.svg").replace("&#160;", " ")
    command = re.search(r"\$ (nemoport [^<]+)<", picture)[1]
    assert (
        parsed(shlex.split(command)).checkpoint and command == runpy.run_path(str(ROOT / "docs" / "draw_terminal.py"))["COMMAND"]
    )
    assert "pass" in picture and not re.search(r"url\(\"?http|/tmp/|/home/", picture)


def test_links_of_a_page_are_those_of_its_place_in_the_site():
    text = (
        "[a](../CONTRIBUTING.md#rules) [b](../export/kinds.py) [c](tests.md) [d](https://x.org)\n```sh\n[g](../tests.md)\n```\n"
    )
    found = SITE["relinked"](text, "architecture.md")
    assert "[a](contributing.md#rules)" in found and "(https://github.com/nemoport/nemoport/blob/main/export/kinds.py)" in found
    assert "[c](tests.md)" in found and "[d](https://x.org)" in found and "[g](../tests.md)" in found
    assert SITE["relinked"]("[a](README.md) [b](../docs/tests.md)", "bench/accuracy.md") == "[a](index.md) [b](../tests.md)"


@pytest.mark.parametrize("document", MATRIX["DOCUMENTS"])
def test_the_table_of_what_works_is_that_of_the_registries(document):
    assert read(document) == MATRIX["filled"](document), "run `python docs/support_matrix.py`"


def test_what_was_judged_exists():
    kinds = {kind.name: kind for kind in MATRIX["KINDS"]}
    for (kind, target), judged in MATRIX["JUDGED"].items():
        names = [name for text in judged.values() for name in text.split()]
        assert kind in kinds and len(names) == len(set(names)) and set(names) <= set(MATRIX["variants"](target)), (kind, target)
        assert all(MATRIX["verdict"](kind, target, name) != MATRIX["NO"] for name in names)


@pytest.mark.parametrize("target", sorted(set(MATRIX["targets"]()) - {"onnx"}))
def test_what_the_table_calls_refused_is(target, tmp_path):
    pytest.importorskip("torch")
    from nemoport.cache_layout import KV, check_layout
    from nemoport.errors import UsageError
    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.export.target import Source

    one = MATRIX["targets"]()[target]
    checkpoint = read_checkpoint(str(ROOT / "reference" / "checkpoints" / "offline-tdt.nemo"))
    with pytest.raises(UsageError):
        check_layout(KV, checkpoint.spec)
    refused = [name for name in one.precisions if MATRIX["verdict"](checkpoint.spec.kind, target, name) == MATRIX["NO"]]
    assert (refused == []) == (target in ("coreml", "litert"))
    for name in refused:
        with pytest.raises(UsageError):
            resolved = one.resolve(one.precisions[name], checkpoint.spec)
            one.convert(Source(checkpoint, tmp_path, None, print), tmp_path, resolved, print)


# Search: what a newcomer asks

# A question -> what is typed into the search, the page that answers it, the answer.
QUESTIONS = {
    "How do I transcribe a file?": (
        "transcribe file",
        "transcribing.md",
        "nemoport transcribe dist/streaming-en/kv-int8-weight talk.flac",
    ),
    "How do I transcribe a microphone, live?": ("microphone live", "examples.md", "sounddevice"),
    "Which variant do I take?": ("choose variant", "variants.md", "`kv-int8-weight`"),
    "What is the delay?": ("latency lookahead", "variants.md", "560 ms"),
    "Does the 0.6B model fit into my laptop's memory?": ("0.6B laptop memory", "laptop.md", "1167 to 1309"),
    "Why is the text empty?": ("text empty", "troubleshooting.md", "--channel 0"),
    "Why is there NaN on my GPU?": ("NaN GPU", "troubleshooting.md", "--provider cuda"),
    "How do I choose the language?": ("choose language", "kinds/multilingual.md", "--language de-DE"),
    "How do I get subtitles?": ("subtitles", "transcribing.md", "--format srt"),
    "How do I make it recognise a name?": ("hotwords", "beam-and-hotwords.md", "--hotword pelican"),
    "A gate failed. What now?": ("gate fails", "gates.md", "What failed"),
    "Can I run it without nemoport?": ("without nemoport numpy", "streaming.md", "onnxruntime alone"),
    "Is my checkpoint supported?": ("checkpoint kind refused", "kinds/index.md", "nemoport kind"),
    "What is this checkpoint?": ("inspect checkpoint", "kinds/index.md", "nemoport inspect"),
    "Can it be a folder of transformers?": ("transformers folder", "kinds/index.md", "model.safetensors"),
    "How do I take the CTC decoder of a hybrid?": ("CTC head hybrid", "kinds/ctc.md", "--head ctc"),
    "Does it take parakeet-unified?": ("unified windows", "kinds/buffered.md", "--chunk-frames"),
    "How do I use a language model?": ("language model beam", "beam-and-hotwords.md", "--lm words.arpa"),
    "How do I split a live stream into utterances?": ("live pause utterance", "transcribing.md", "--pause 0.8"),
    "How do I measure the word error rate on my recordings?": ("evaluate recordings", "scale.md", "nemoport evaluate dist/"),
    "How much time and disk space does a run take?": ("plan time disk", "pipeline.md", "--dry-run"),
    "Does it run on an iPhone?": ("iPhone", "runtimes/apple.md", "TARGET=coreai"),
    "How do I prove who made a package?": ("signature key", "signatures.md", "nemoport sign"),
    "How do I add a precision?": ("add precision", "contributing.md", "quantize/my_precision.py"),
}
TITLE = 20.0  # a word in a heading, by one in the text


def found_by_search(query: str) -> list[str]:
    """Pages, the best first, by their best section. As in the site's search, a word is found by its beginning, and what stands
    in a heading and in few sections weighs more (BM25)."""
    sections = []
    for page, source in SITE["pages"]().items():
        if page.endswith(".md"):
            for part in re.split(r"^(?=#+ )", read(source), flags=re.MULTILINE):
                title, _, text = part.partition("\n")
                sections.append((page, re.findall(r"[\w.]+", title.lower()), re.findall(r"[\w.]+", text.lower())))
    mean = sum(len(text) for *_, text in sections) / len(sections)
    scores = dict.fromkeys(SITE["pages"](), 0.0)
    counts = [[_begin(title, word) * TITLE + _begin(text, word) for _, title, text in sections] for word in query.lower().split()]
    rare = [math.log(1 + len(sections) / (1 + sum(count > 0 for count in row))) for row in counts]
    for at, (page, _, text) in enumerate(sections):
        length = 0.25 + 0.75 * len(text) / mean
        score = sum(rarity * row[at] * 2.2 / (row[at] + 1.2 * length) for row, rarity in zip(counts, rare, strict=True))
        scores[page] = max(scores[page], score)
    return sorted(scores, key=scores.__getitem__, reverse=True)


def _begin(words: list[str], word: str) -> int:
    return sum(one.startswith(word) for one in words)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_newcomers_question_is_answered_on_a_page_that_search_finds(question):
    query, page, answer = QUESTIONS[question]
    assert page in found_by_search(query)[:3] and answer in read(SITE["pages"]()[page])


def test_the_site_is_built_strictly_and_asks_no_other_server(tmp_path):
    pytest.importorskip("mkdocs")
    built = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(built)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list(built.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        asked = re.findall(r"<(?:script|link|img)[^>]*?(?:src|href)=\"?(https?://[^\s\">]+)", text)
        assert [url for url in asked if not url.startswith("https://github.com/nemoport")] == [], page
    index = json.loads((built / "search" / "search_index.json").read_text())["docs"]
    assert "int8" in " ".join(entry["text"] for entry in index).lower()


# Blocks that are run


@pytest.fixture(scope="module")
def world(docs_package, tmp_path_factory):
    """A folder as a reader has it: a clone's files, a package in dist/, recordings; and programs that stand for a microphone."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("reference", "examples", "requirements-use.txt"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "dist").mkdir()
    (folder / "build").mkdir()
    shutil.copytree(docs_package, folder / "dist" / "streaming-en")
    clips = sorted((ROOT / "reference" / "audio" / "eval").glob("*.flac"))[:4]
    import soundfile

    samples, rate = soundfile.read(clips[1], dtype="int16")
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, samples, rate)
    for name in ("talk.flac", "long.flac"):
        shutil.copy(clips[1], folder / name)
    (folder / "recordings").mkdir()
    shutil.copy(clips[2], folder / "recordings")
    rows = (ROOT / "reference" / "audio" / "eval.jsonl").read_text().splitlines()[:2]
    rows = [
        json.loads(row) | {"audio_filepath": str(ROOT / "reference/audio" / json.loads(row)["audio_filepath"])} for row in rows
    ]
    (folder / "short.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    programs = folder / "programs"
    programs.mkdir()
    (folder / "talk.raw").write_bytes(samples.tobytes())
    scripts = {
        "nemoport": f'exec "{sys.executable}" -m nemoport.cli "$@"',
        "python": f'exec "{sys.executable}" "$@"',
        "arecord": f'exec cat "{folder}/talk.raw"',
        "ffmpeg": f'exec cat "{folder}/a.wav"',
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    return folder


def run_shell(block: Block, world: Path, monkeypatch, capfd) -> None:
    """Runs a block. A line that is one nemoport command runs in this process, which saves its start; others in bash."""
    monkeypatch.chdir(world)
    monkeypatch.setenv("PATH", f"{world / 'programs'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    for line in block.commands:
        parts = words(line)
        if len(parts) == 1 and parts[0][0] == "nemoport" and ">" not in line:
            assert main(parts[0][1:]) == 0, f"{line}\n{capfd.readouterr().err[-2000:]}"
        else:
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"


def installs(block: Block) -> bool:
    """Whether a block only brings and installs what a test runs with already."""
    return all(command[0] in ("pip", "git", "cd") for line in block.commands for command in words(line))


FAST = [b for b in SHELL if b.document in PAGES and not b.told.keys() & {"not run", "slow"} and not installs(b)]
SLOW = {document: found for document in PAGES if (found := [block for block in blocks(document) if "slow" in block.told])}


@pytest.mark.parametrize("block", FAST, ids=ids)
def test_shell_block_runs(block, world, monkeypatch, capfd):
    run_shell(block, world, monkeypatch, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("document", SLOW)
def test_slow_blocks_run(document, world, monkeypatch, capfd):
    """The slow blocks of a page, in order."""
    for block in SLOW[document]:
        if block.language == "sh":
            run_shell(block, world, monkeypatch, capfd)
        else:
            exec(compile(block.text, block.name, "exec"), {"__name__": document})


def microphone():
    """What stands for a microphone in the blocks: a recording in packets of 100 ms."""
    import soundfile

    samples, rate = soundfile.read("talk.flac", dtype="float32")
    yield from (samples[at : at + rate // 10] for at in range(0, len(samples), rate // 10))


PYTHON = {
    document: found
    for document in PAGES
    if (found := [b for b in blocks(document) if b.language == "python" and not b.told.keys() & {"not run", "slow"}])
}


@pytest.mark.parametrize("document", PYTHON)
def test_python_blocks_run(document, world, monkeypatch, capfd):
    """The blocks of a page, one after another, in one namespace."""
    monkeypatch.chdir(world)
    names = {"microphone": microphone, "__name__": document}
    for block in PYTHON[document]:
        exec(compile(block.text, block.name, "exec"), names)
    assert capfd.readouterr().out.strip()


def test_the_page_on_streaming_has_the_example_in_order():
    source = read("examples/streaming_numpy.py")
    found = [block.text.rstrip("\n") for block in blocks("docs/streaming.md") if block.language == "python"][:-1]
    bodies = [re.sub(r"^class Stream\(Stream\):.*\n", "", text) for text in found]
    places = [source.index(body) for body in bodies]
    assert all(one < next_one for one, next_one in pairwise(places)) and len(places) == 8
