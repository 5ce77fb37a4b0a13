"""docs/schemas: what the code checks, and what it writes."""

import json
import runpy
from pathlib import Path

import jsonschema
import pytest

DOCS = Path(__file__).parent.parent / "docs"
WRITER = runpy.run_path(str(DOCS / "write_schemas.py"))


def test_they_are_those_of_the_code(tmp_path):
    WRITER["main"](tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in (DOCS / "schemas").iterdir()}, "run python docs/write_schemas.py"


def schema(name):
    return json.loads((DOCS / "schemas" / f"{name}.schema.json").read_text())


@pytest.mark.parametrize(
    ("name", "path", "key"),
    [
        ("config-streaming", "config.json", "encoder"),
        ("spec", "config.json", "kind"),
        ("variant-manifest", "fp32/manifest.json", "files"),
    ],
)
def test_a_build_meets_them(build, name, path, key):
    raw = json.loads((build / path).read_text())
    raw = raw["spec"] if name == "spec" else raw
    jsonschema.validate(raw, schema(name))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({k: v for k, v in raw.items() if k != key}, schema(name))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(raw | {key: 7}, schema(name))
