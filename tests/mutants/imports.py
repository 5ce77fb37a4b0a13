"""Which modules of nemoport can be imported before one of them is mutated: those that do not import it, even indirectly."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path


def unaffected(tree: Path, mutated: Path, tests: Iterable[Path]) -> list[str]:
    """Names of the modules in `tree` that the tests import, directly or not, and that do not import `mutated`."""
    names = {_name(tree, path): path for path in (tree / "nemoport").rglob("*.py")}
    imported = {name: _imports(path, names) | ({name.rpartition(".")[0]} & names.keys()) for name, path in names.items()}
    wanted = _closure({name for test in tests for name in _imports(test, names)}, imported)
    importers: dict[str, set[str]] = {name: set() for name in names}
    for name, others in imported.items():
        for other in others:
            importers[other].add(name)
    return sorted(wanted - _closure({_name(tree, mutated)}, importers))


def _name(tree: Path, path: Path) -> str:
    parts = path.relative_to(tree).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, names: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    packages = {name.rpartition(".")[0] for name in found} | {name.split(".")[0] for name in found}
    return (found | packages) & names.keys()


def _closure(start: set[str], edges: dict[str, set[str]]) -> set[str]:
    found, waiting = set(start), list(start)
    while waiting:
        new = edges[waiting.pop()] - found
        found |= new
        waiting += new
    return found
