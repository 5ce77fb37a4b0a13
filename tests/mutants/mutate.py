"""Makes the mutants of a module: mutmut's operators on every node but those that are left out here.

Left out: annotations, decorators, assertions; what an error, a progress line or a gate's evidence says; formatted strings;
`encoding`, `strict`. Of a string there is one mutant, and none of a string with two spaces or more, which is prose.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper
from mutmut.mutation.mutators import mutation_operators, operator_arg_removal, operator_string

TEXTS = ("evidence", "unit", "expected", "found", "todo", "what", "encoding", "strict", "help")  # keywords of arguments
TEXT_NAMES = ("evidence", "note", "where", "late", "stalled", "todo", "what")  # variables that hold texts
SAYS = ("progress", "print", "warn", "show")
LEFT_OUT = (cst.Annotation, cst.Decorator, cst.Assert, cst.Raise, cst.FormattedString, cst.Import, cst.ImportFrom)
PROSE_SPACES = 2
SCOPES = (cst.FunctionDef, cst.ClassDef)


@dataclass(frozen=True)
class Mutant:
    """A fault in a module. scope: the function or class that it is in; was, now: the lines that differ, without indentation."""

    scope: str
    was: str
    now: str
    code: str
    diff: str


class Mutants(Sequence):
    """All mutants of a module, in the order of its lines. name: of the file, for the diffs. One is made when it is asked for."""

    def __init__(self, source: str, name: str) -> None:
        self._module, self._source, self._name = MetadataWrapper(cst.parse_module(source)).module, source, name
        finder = _Finder()
        self._module.visit(finder)
        self._found = finder.found

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, number: int) -> Mutant:
        scope, node, other = self._found[number]
        code = self._module.deep_replace(node, other).code
        names = f"a/{self._name}", f"b/{self._name}"
        lines = list(difflib.unified_diff(self._source.splitlines(), code.splitlines(), *names, lineterm="", n=2))
        was, now = ("\n".join(line[1:].strip() for line in lines[2:] if line[0] == sign) for sign in "-+")
        return Mutant(scope, was, now, code, "\n".join(lines))


class _Finder(cst.CSTVisitor):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, cst.CSTNode, cst.CSTNode]] = []
        self._scope: list[str] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_left_out(node):
            return False
        if isinstance(node, SCOPES):
            self._scope.append(node.name.value)
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                self.found += [(".".join(self._scope), node, other) for other in _changed(node, operator)]
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        if isinstance(node, SCOPES):
            self._scope.pop()


def _changed(node: cst.CSTNode, operator) -> Iterator[cst.CSTNode]:
    if operator is operator_string:
        yield from list(operator(node))[:1]
    elif operator is operator_arg_removal:
        yield from (other for other in operator(node) if not _only_a_text(node, other))
    else:
        yield from operator(node)


def _only_a_text(call: cst.CSTNode, other: cst.CSTNode) -> bool:
    """Whether what `other` lacks of a call's arguments is only a text."""
    assert isinstance(call, cst.Call) and isinstance(other, cst.Call)
    return all(_is_text(arg) for arg in call.args if not any(arg is kept for kept in other.args))


def _is_text(arg: cst.Arg) -> bool:
    named = arg.keyword is not None and arg.keyword.value in TEXTS
    return named or isinstance(arg.value, cst.FormattedString) or _is_prose(arg.value)


def _is_prose(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleString) and node.value.count(" ") >= PROSE_SPACES


def _is_left_out(node: cst.CSTNode) -> bool:
    if isinstance(node, LEFT_OUT) or _is_prose(node) or (isinstance(node, cst.Arg) and _is_text(node)):
        return True
    if isinstance(node, cst.If) and m.matches(node.test, m.Name("TYPE_CHECKING") | m.Comparison(left=m.Name("__name__"))):
        return True
    if isinstance(node, cst.Assign | cst.AugAssign):
        targets = [one.target for one in node.targets] if isinstance(node, cst.Assign) else [node.target]
        return all(isinstance(one, cst.Name) and one.value in TEXT_NAMES for one in targets)
    if not isinstance(node, cst.Call):
        return False
    name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
    return isinstance(name, cst.Name) and name.value in SAYS
