"""What the contract gate looks at in an artifact's graphs, without a gate's context."""

from collections.abc import Iterator

from nemoport.interface import differences
from nemoport.runtimes import runtime_of


def runtime_problems(artifact, spec) -> Iterator[str]:
    """A text for each thing that was looked at, "" where it is right."""
    runtime = runtime_of(artifact)
    found = runtime.found(artifact)
    for name, interface in runtime.expected(artifact, spec).items():
        yield from differences(name, interface, found[name], runtime.optional)
    yield from runtime.problems(artifact, spec)
