"""What a runtime is to the rest of the project: how its graphs are opened, what they are called, what they take and return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version as distribution_version
from importlib.util import find_spec

from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.interface import Interface
from nemoport.session import Session
from nemoport.spec import ModelSpec

OpenSession = Callable[[Artifact, str, int], Session]


@dataclass(frozen=True)
class Runtime:
    """A runtime that runs artifacts.

    name: as an artifact's recipe names its target; title: as a model card names the graphs' format; library: what the Hub calls
    that; package: the distribution that runs them; extra: of pyproject.toml, which installs it, "" where nemoport always does;
    modules: what has to be importable.
    open_session(artifact, provider, threads): provider as the runtime names its devices, threads 0 for its own choice. Raises
    UsageError for a provider that is not there or a runtime that is not installed, ArtifactError for graphs that it cannot load.
    expected(artifact, spec): graph -> its interface, for the artifact's recipe and the checkpoint's spec. found(artifact): the
    same of the graphs on disk, by the same names; one that is absent is left out. optional: names of tensors that a graph may
    lack, because nothing is computed from them. problems(artifact, spec): what else a consumer of the graphs would trip over, in
    the files beside them: a text for each thing that was looked at, "" where it is right.
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

    @property
    def version(self) -> str:
        """The distribution and its version, as figures name them."""
        return f"{self.package} {distribution_version(self.package)}"

    def check_installed(self) -> None:
        """Raises UsageError."""
        check_installed(f"The runtime {self.name}", self.modules, self.extra)

    def open(self, artifact: Artifact, provider: str = "cpu", threads: int = 0) -> Session:
        """As `open_session`."""
        self.check_installed()
        return self.open_session(artifact, provider, threads)


def check_installed(what: str, modules: tuple[str, ...], extra: str) -> None:
    """Raises UsageError naming those of `modules` that cannot be imported. what: needs them; extra: installs them."""
    if absent := list(_absent(modules)):
        raise UsageError(
            f"{what} needs packages that are not installed.",
            expected=", ".join(modules),
            found=f"no {', no '.join(absent)}",
            todo=f"pip install 'nemoport[{extra}]'",
        )


def _absent(modules: tuple[str, ...]) -> Iterator[str]:
    yield from (module for module in modules if find_spec(module) is None)
