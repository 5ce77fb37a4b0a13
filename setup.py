"""Leaves out of wheels what only a working copy needs, and adds an SBOM. All else of the build is stated in pyproject.toml."""

import json
import re
from pathlib import Path
from shutil import rmtree

from setuptools import __version__, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

REFERENCE = "nemoport.reference"  # the recipe that trains the small checkpoints; tests and benchmarks run it from here


class BuildWithoutReference(build_py):
    """Builds every package but `REFERENCE`, unless the installation is editable."""

    def run(self) -> None:
        if not self.editable_mode:
            self.packages = [name for name in self.packages or () if name != REFERENCE and not name.startswith(f"{REFERENCE}.")]
            # setuptools packs all that it finds there: an earlier build may have left modules that are gone.
            rmtree(Path(self.build_lib, "nemoport"), ignore_errors=True)
        super().run()


class WheelWithSbom(bdist_wheel):
    """Adds a CycloneDX SBOM where PEP 770 places it. The hashes of the wheel's files are in its RECORD."""

    def write_wheelfile(self, wheelfile_base: str, *arguments: str, **options: str) -> None:
        super().write_wheelfile(wheelfile_base, *arguments, **options)
        path = Path(wheelfile_base, "sboms", "nemoport.cdx.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(self._sbom(), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def _sbom(self) -> dict:
        whole = self.distribution
        extras = {name: lines for name, lines in whole.extras_require.items() if name != "dev"}
        optional = {line for lines in extras.values() for line in lines}.difference(whole.install_requires)
        return {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "lifecycles": [{"phase": "build"}],
                "tools": {"components": [_library("setuptools", __version__)]},
                "component": {
                    **_library(whole.get_name(), whole.get_version()),
                    "licenses": [{"expression": whole.metadata.license_expression}],
                },
            },
            "components": [
                *(_required(line, "required") for line in sorted(whole.install_requires)),
                *(_required(line, "optional") for line in sorted(optional) if not line.startswith(f"{whole.get_name()}[")),
            ],
        }


def _library(name: str, version: str = "") -> dict:
    versions = {"version": version, "purl": f"pkg:pypi/{name}@{version}"} if version else {"purl": f"pkg:pypi/{name}"}
    return {"type": "library", "name": name, **versions}


def _required(line: str, scope: str) -> dict:
    """A dependency. Its version is known where the requirement names one alone."""
    name, version = re.fullmatch(r"([\w.-]+)(?:\[.*?\])?(?:==([\w.]+))?.*", line).groups()
    properties = [{"name": "nemoport:requirement", "value": line}]
    return {**_library(name.lower().replace("_", "-"), version or ""), "scope": scope, "properties": properties}


setup(cmdclass={"build_py": BuildWithoutReference, "bdist_wheel": WheelWithSbom})
