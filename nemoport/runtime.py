"""The description of a runtime for the rest of the project: how its graphs are opened, their names, inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version as distribution_version
from importlib.util import find_spec

from nemoport.artifact import Artifact
from nemoport.errors import UsageError, not_installed
from nemoport.interface import Interface
from nemoport.session import Session
from nemoport.spec import ModelSpec

OpenSession = Callable[[Artifact, str, int], Session]


@dataclass(frozen=True)
class Runtime:
    """A runtime that runs artifacts.

    Names:
      name: the runtime's name in an artifact's recipe, under `target`.
      title: the name of the graphs' format in a model card.
      library: the Hub's name of that format, for `library_name`.
      package: the Python distribution that runs the graphs.
      extra: the extra of pyproject.toml that installs it; "" where nemoport always installs it.
      modules: the Python modules that must be importable before an artifact is opened.

    Functions:
      open_session(artifact, provider, threads): opens the graphs. provider: the runtime's own name of a device; threads: 0 for
        the runtime's choice. Raises UsageError for a provider that is absent, ArtifactError for graphs that cannot be loaded.
      expected(artifact, spec): returns the interface that each graph must have, by the graph's name, for the artifact's recipe
        and the checkpoint's spec.
      found(artifact): returns the interface that each graph on disk has, by the same names, without graphs that are absent.
      problems(artifact, spec): checks the files beside the graphs, such as metadata, and what the interfaces do not show. Yields
        a text for each check: what is wrong, or "" where nothing is.

    optional: names of tensors that a graph may lack, because nothing is computed from them. cpu_only: what to do for another
    device, of a runtime that runs here on the CPU alone; "" for one that has other providers. holds_code: which files of an
    artifact can hold code that runs when they are opened, "" where none can; such an artifact is opened only where this machine
    built it.
    """

    name: str
    title: str
    library: str
    package: str
    open_session: OpenSession
    expected: Callable[[Artifact, ModelSpec], dict[str, Interface]]
    found: Callable[[Artifact], dict[str, Interface]]
    problems: Callable[[Artifact, ModelSpec], Iterator[str]] = lambda artifact, spec: iter(())
    extra: str = ""
    modules: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    cpu_only: str = ""
    holds_code: str = ""

    @property
    def version(self) -> str:
        """The distribution and its version, as measured figures cite them."""
        return f"{self.package} {distribution_version(self.package)}"

    def check_installed(self) -> None:
        """Raises UsageError if a module that the runtime needs is not installed."""
        check_installed(f"The runtime {self.name}", self.modules, self.extra)

    def open(self, artifact: Artifact, provider: str = "cpu", threads: int = 0, *, built_here: bool = False) -> Session:
        """Checks the installation, the provider and that no code of a stranger is run, then calls `open_session`.

        built_here: this machine built the artifact. Raises UsageError, and what `open_session` raises.
        """
        self.check_installed()
        if self.cpu_only and provider != "cpu":
            what = f"The runtime {self.name} has no provider {provider!r} here."
            raise UsageError(what, expected="cpu", found=provider, todo=self.cpu_only)
        if self.holds_code and not built_here:
            raise UsageError(
                f"{artifact.folder} is not run: {self.holds_code} can hold code, and a hash does not show whose.",
                expected="an artifact that this machine built, in `nemoport validate`",
                found=f"an artifact of {self.title}, which may come from anyone",
                todo="transcribe with a variant for another runtime, or run the packages in an app",
            )
        return self.open_session(artifact, provider, threads)


def check_installed(what: str, modules: tuple[str, ...], extra: str) -> None:
    """Raises UsageError naming those of `modules` that cannot be imported.

    what: the thing that needs them, for the message; extra: the extra of pyproject.toml that installs them.
    """
    if absent := list(_absent(modules)):
        raise not_installed(what, ", ".join(modules), absent, f"pip install 'nemoport[{extra}]'")


def _absent(modules: tuple[str, ...]) -> Iterator[str]:
    yield from (module for module in modules if find_spec(module) is None)
