"""sbom.cdx.json of a package, a CycloneDX software bill of materials: its files, the checkpoint and the tools that made them.

It holds neither time nor serial number, so that the same inputs give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from nemoport.artifact import FileEntry, file_entries
from nemoport.files import write_json
from nemoport.package.layout import CardFacts
from nemoport.package.manifest import SBOM, hash_files
from nemoport.package.terms import Terms

SPEC_VERSION = "1.6"


def write_sbom(facts: CardFacts, folder: Path) -> tuple[FileEntry, ...]:
    """Adds the SBOM of what is in `folder` and returns the entries of all files, sorted by path. Raises OutputError."""
    files = hash_files(folder)
    write_json(folder / SBOM, sbom(facts, files))
    return tuple(sorted([*files, *file_entries(folder, {SBOM: SBOM}).values()], key=lambda entry: entry.path))


def sbom(facts: CardFacts, files: tuple[FileEntry, ...]) -> dict[str, Any]:
    """Returns the SBOM as a JSON object. Tools: of every variant, in each version that made one."""
    tools = {pair for artifact in facts.artifacts.values() for pair in artifact.manifest.tools.items()}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [_tool(name, version) for name, version in sorted(tools)]},
            "component": {
                "type": "machine-learning-model",
                "name": facts.name,
                "description": f"{facts.runtime.title} graphs of a NeMo speech recogniser: {', '.join(facts.artifacts)}",
                "licenses": _licences(facts.terms),
                "pedigree": {"ancestors": [_checkpoint(facts)]},
            },
        },
        "components": [{"type": "file", "name": entry.path, "hashes": _hashes(entry.sha256)} for entry in files],
    }


def _checkpoint(facts: CardFacts) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "name": facts.name if "format" in facts.config["checkpoint"] else f"{facts.name}.nemo",
        "hashes": _hashes(facts.checkpoint_sha256),
        "licenses": _licences(facts.terms),
    }
    if facts.terms.base_model:
        found["pedigree"] = {"ancestors": [_base(facts.terms)]}
    return found


def _base(terms: Terms) -> dict[str, str]:
    revision = f"@{quote(terms.revision, safe='')}" if terms.revision else ""
    purl = f"pkg:huggingface/{terms.base_model}{revision}"
    return {"type": "machine-learning-model", "name": terms.base_model, "purl": purl}


def _tool(name: str, version: str) -> dict[str, str]:
    return {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{quote(version)}"}


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _licences(terms: Terms) -> list[dict[str, Any]]:
    named = {"id": terms.licence.spdx} if terms.licence.spdx else {"name": terms.licence.name}
    return [{"license": named | {"url": terms.licence.url}}]
