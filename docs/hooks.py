"""What mkdocs is given besides the pages in docs/: documents that stand elsewhere in the repository, pages that are made of the
code, and links that lead where they lead on GitHub."""

from __future__ import annotations

import argparse
import os
import posixpath
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "https://github.com/nemoport/nemoport"
# Documents outside of docs/ -> their page in the site. README.md is for GitHub: index.md is its page here.
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "bench/README.md": "bench/index.md",
    "examples/README.md": "examples.md",
    "reference/README.md": "reference-checkpoints.md",
    **{f"bench/{path.name}": f"bench/{path.name}" for path in sorted((ROOT / "bench").glob("*.*")) if path.name != "README.md"},
}
SERVED = (".md", ".png", ".svg")
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^(```|~~~).*?^\1[^\S\n]*$", re.MULTILINE | re.DOTALL)


def pages() -> dict[str, str]:
    """Site path -> path in the repository, of every document and picture that the site has and that stands in the repository."""
    ours = {path.relative_to(ROOT / "docs").as_posix(): path for path in sorted((ROOT / "docs").rglob("*")) if path.is_file()}
    found = {name: f"docs/{name}" for name, path in ours.items() if path.suffix in (*SERVED, ".json")}
    elsewhere = {page: source for source, page in ELSEWHERE.items() if page not in found and page.endswith(SERVED)}
    return found | {page: source for page, source in elsewhere.items() if (ROOT / source).is_file()}


def relinked(text: str, page: str) -> str:
    """Returns a document's text with the links of its place in the repository as links of `page`, its place in the site; what the
    site does not have is linked on GitHub."""
    sources = pages()
    to_page = {source: name for name, source in sources.items()} | {
        source: name for source, name in ELSEWHERE.items() if name in sources or name == "index.md"
    }
    here = posixpath.dirname(sources.get(page, f"docs/{page}"))

    def link(found: re.Match[str]) -> str:
        target, _, anchor = found[2].partition("#")
        if not target or ":" in target:
            return found[0]
        source = posixpath.normpath(posixpath.join(here, target))
        if source in to_page:
            new = posixpath.relpath(to_page[source], posixpath.dirname(page) or ".")
        elif (ROOT / source).exists():
            new = f"{REPOSITORY}/{'tree' if (ROOT / source).is_dir() else 'blob'}/main/{source}"
        else:
            return found[0]  # of a page that is made of the code; mkdocs refuses any other
        return found[1] + new + (f"#{anchor}" if anchor else "") + found[3]

    return "".join(part if part.startswith(("```", "~~~")) else LINK.sub(link, part) for part in fenced(text))


def fenced(text: str) -> Iterator[str]:
    """The text in parts, in order: fenced blocks, and what is between them."""
    at = 0
    for block in FENCE.finditer(text):
        yield text[at : block.start()]
        yield block[0]
        at = block.end()
    yield text[at:]


def command_line() -> str:
    """The page of the command line, made of the parser that the command itself uses."""
    from nemoport.cli import parser

    os.environ["COLUMNS"] = "88"  # of the usage
    whole = parser()
    commands = next(action for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    text = ["# Command line\n", f"{whole.description or ''}\n", *_options(whole)]
    text += ["Exit codes: 0 done, 1 a gate failed, 2 unusable input, 3 a fault of nemoport itself, 130 Ctrl-C, 143 SIGTERM.\n"]
    for name, one in commands.choices.items():
        one.formatter_class = argparse.HelpFormatter
        usage = one.format_usage().removeprefix("usage: ").strip()
        text += [f"## nemoport {name}\n", f"{_cell(one.description)}\n", f"```text\n{usage}\n```\n", *_options(one)]
        if one.epilog:
            text += [f"```text\n{_plain(one.epilog).strip()}\n```\n"]
    return "\n".join(text)


def _options(of: argparse.ArgumentParser) -> list[str]:
    of.formatter_class = argparse.HelpFormatter
    formatter = of._get_formatter()
    rows = []
    for action in of._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        shown = [f"`{flag}`" for flag in action.option_strings] or [f"`{action.metavar or action.dest}`"]
        if action.option_strings and action.nargs != 0:
            shown[-1] = f"`{action.option_strings[-1]} {formatter._format_args(action, action.dest.upper())}`"
        rows.append(f"| {', '.join(map(_cell, shown))} | {_cell(formatter._expand_help(action) if action.help else '')} |")
    return ["| argument | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"] if rows else []


def _cell(text: str | None) -> str:
    return _plain(" ".join((text or "").split())).replace("|", "\\|").replace("<", "&lt;")


def _plain(text: str) -> str:
    """Without the marks that rich reads, as [bold]."""
    return re.sub(r"\[/?[a-z]+(?: [a-z]+)*\]", "", text)


def schemas() -> str:
    """The page of the JSON Schemas: what each describes, and the file."""
    names = runpy.run_path(str(ROOT / "docs" / "write_schemas.py"))["SCHEMAS"]
    rows = []
    for name, kind in names.items():
        what = (kind.__doc__ or "").split(". ")[0].rstrip(".")
        rows.append(f"| [{name}](../schemas/{name}.schema.json) | `{kind.__name__}` | {_cell(what)} |")
    head = (
        "# Schemas\n\nJSON Schemas of the files in a build and in a package. `docs/write_schemas.py` makes them of the types by "
    )
    return head + "which nemoport reads these files.\n\n| schema | type | of |\n|---|---|---|\n" + "\n".join(rows) + "\n"


MADE: dict[str, Callable[[], str]] = {"reference/cli.md": command_line, "reference/schemas.md": schemas}


def on_files(files: Any, config: Any) -> Any:
    """mkdocs: adds the documents outside of docs/ and the pages that are made of the code."""
    from mkdocs.structure.files import File

    runpy.run_path(str(ROOT / ".ci" / "tree.py"))["link_tree"]()
    sys.path.insert(0, str(ROOT / "build" / "tree"))
    for page, source in pages().items():
        if not source.startswith("docs/"):
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for page, make in MADE.items():
        files.append(File.generated(config, page, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """mkdocs: the links of a page. What test_docs.py is told in comments is left out."""
    return re.sub(r"<!-- (not run|slow)[^>]*-->\n", "", relinked(markdown, page.file.src_uri))
