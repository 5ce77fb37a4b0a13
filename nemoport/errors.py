"""The errors that nemoport raises for input that it cannot use. The command line prints them and exits with 2."""

from collections.abc import Iterable

from nemoport.text import printable

LONGEST_PART = 4000  # characters of one of an error's sentences, which may quote a file


class NemoportError(Exception):
    """Base of the errors: one clear sentence for each of what went wrong, what was expected, what was found, what to do."""

    exit_code = 2

    def __init__(self, what: str, *, expected: str = "", found: str = "", todo: str = ""):
        self.what, self.expected, self.found, self.todo = what, expected, found, todo
        parts = [what, f"expected: {expected}", f"found: {found}", f"do: {todo}"]
        shown = (part if len(part) <= LONGEST_PART else f"{part[:LONGEST_PART]} ..." for part in map(printable, parts))
        super().__init__("\n  ".join(p for p, v in zip(shown, (what, expected, found, todo), strict=True) if v))


class CheckpointError(NemoportError):
    """A .nemo file cannot be read, or holds a model that cannot be exported."""


class AudioError(NemoportError):
    """An audio file or packet cannot be used."""


class CorpusError(NemoportError):
    """A NeMo manifest cannot be used: missing, not JSON lines, missing files, wrong columns, overlap."""


class ArtifactError(NemoportError):
    """A build or package folder is incomplete, damaged, or not what was asked for."""


class OutputError(NemoportError):
    """The place to write to is taken, full or not writable."""


class ResourceError(NemoportError):
    """Less memory is free than a stage takes."""


class UsageError(NemoportError):
    """An option has a value that does not exist."""


def not_installed(what: str, expected: str, absent: Iterable[str], todo: str) -> UsageError:
    """Returns the error of something that lacks packages. absent: the names of their modules."""
    return UsageError(
        f"{what} needs packages that are not installed.",
        expected=expected,
        found=f"no {', no '.join(absent)}",
        todo=todo,
    )


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its class where the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
