"""The mutation runner: what it mutates and what it leaves out, and that its lists are of files and lines that exist."""

import tomllib
from pathlib import Path

import pytest

pytest.importorskip("mutmut")

from mutants import run
from mutants.imports import unaffected
from mutants.mutate import Mutants
from mutants.nearest import DECISIVE, NEAREST, TORCH

ROOT = Path(__file__).parent.parent
SOURCE = '''"""What it is for."""
LIMIT: int = 3


@dataclass(frozen=True)
class Thing:
    name: str = "a"

    @property
    def large(self) -> bool:
        assert self.size > 0, "no size"
        if self.size < LIMIT:
            raise ValueError(f"{self.size + 1} of 2", LIMIT - 1)
        evidence = self.size * 2
        progress(f"{self.size - 1}", 4)
        return read(self.name, "a text of many words", encoding="utf-8", strict=True)
'''


def test_decorated_functions_and_constants_are_mutated_and_texts_are_not():
    found = Mutants(SOURCE, "thing.py")
    made = [found[number] for number in range(len(found))]
    assert [(one.scope, one.was, one.now) for one in made] == [
        ("", "LIMIT: int = 3", "LIMIT: int = None"),
        ("", "LIMIT: int = 3", "LIMIT: int = 4"),
        ("Thing", 'name: str = "a"', "name: str = None"),
        ("Thing", 'name: str = "a"', 'name: str = "XXaXX"'),
        ("Thing.large", "if self.size < LIMIT:", "if self.size <= LIMIT:"),
        ("Thing.large", READ, READ.replace("self.name", "None")),
        ("Thing.large", READ, READ.replace("self.name, ", "")),
    ]
    assert all(one.diff.count("\n+") == 2 and one.code != SOURCE for one in made)
    assert len({one.code for one in made}) == len(made)


READ = 'return read(self.name, "a text of many words", encoding="utf-8", strict=True)'


def test_what_a_mutant_cannot_change_is_imported_before(tmp_path):
    files = {
        "__init__": "",
        "a": "import nemoport.b",
        "b": "def late():\n    from nemoport import c",
        "c": "",
        "d": "from nemoport.c import x",
        "e": "",
        "sub/__init__": "from nemoport.a import y",
        "sub/f": "",
    }
    for name, text in files.items():
        path = tmp_path / "nemoport" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    test = tmp_path / "test.py"
    test.write_text("from nemoport.sub import f\nfrom nemoport import d\nimport numpy\n")

    def without(name):
        return unaffected(tmp_path, tmp_path / "nemoport" / f"{name}.py", [test])

    everything = ["nemoport"] + [f"nemoport.{name}" for name in ("a", "b", "c", "d", "sub", "sub.f")]
    assert without("e") == everything
    assert without("c") == ["nemoport"]
    assert without("b") == ["nemoport", "nemoport.c", "nemoport.d"]
    assert without("sub/f") == everything[:-1]


def test_the_tests_nearest_to_each_module_exist():
    assert set(DECISIVE) | TORCH <= set(NEAREST)
    for module, tests in NEAREST.items():
        folder, _, name = module.partition("/")
        assert (ROOT / folder / f"{name}.py").is_file(), module
        assert tests[0].startswith("tests/")
        assert all((ROOT / name).is_file() for name in tests if name.startswith("tests/")), module
    gates = {path.stem for path in (ROOT / "validate" / "gates").glob("*.py")}
    assert {f"validate/gates/{name}" for name in gates} <= set(DECISIVE)


def test_every_listed_survivor_is_of_lines_that_are_there():
    listed = tomllib.loads((ROOT / "tests" / "mutants" / "survivors.toml").read_text()).get("survivor", [])
    for one in listed:
        lines = {line.strip() for line in (ROOT / f"{one['module']}.py").read_text().splitlines()}
        assert set(one["was"].splitlines()) <= lines, one
        assert set(one) == {"module", "scope", "was", "now", "reason"} and one["module"] in NEAREST
        assert one["was"] != one["now"] and len(one["reason"].split()) > 3
    assert len({(one["module"], one["scope"], one["was"], one["now"]) for one in listed}) == len(listed)


def test_a_killed_run_leaves_no_fault_in_the_repository():
    assert run.TREE.is_relative_to(ROOT / "build")
    for module in NEAREST:
        assert run.place(module).is_relative_to(run.TREE)
