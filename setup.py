"""Leaves out of wheels what only a working copy needs. All else of the build is stated in pyproject.toml."""

from pathlib import Path
from shutil import rmtree

from setuptools import setup
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


setup(cmdclass={"build_py": BuildWithoutReference})
