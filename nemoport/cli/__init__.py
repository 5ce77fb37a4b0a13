"""The command line. Its modules parse and print, nothing else. Exit code 0: done, 1: a gate failed, 2: unusable input, 3: a fault
of nemoport itself, 130: Ctrl-C, 143: SIGTERM."""

from __future__ import annotations

import argparse
import sys
import traceback

from nemoport.cli import (
    compare,
    completion,
    distill,
    doctor,
    evaluate,
    export,
    gate,
    inspect,
    kind,
    merge,
    oracle,
    package,
    publish,
    quantize,
    report,
    run,
    score,
    sensitivity,
    serve,
    shard,
    sign,
    transcribe,
    validate,
    verify,
)
from nemoport.cli.parser import make_parser
from nemoport.cli.progress import shown_progress
from nemoport.ending import orderly_end
from nemoport.errors import NemoportError, UsageError, not_installed
from nemoport.text import printable

FAULT = 3  # Python's own exit code for a traceback is 1, which is the verdict of a gate

COMMANDS = (  # in the order of `nemoport --help`
    run.COMMAND,
    transcribe.COMMAND,
    serve.COMMAND,
    inspect.COMMAND,
    kind.COMMAND,
    oracle.COMMAND,
    export.COMMAND,
    quantize.COMMAND,
    sensitivity.COMMAND,
    distill.COMMAND,
    validate.COMMAND,
    gate.COMMAND,
    compare.COMMAND,
    report.COMMAND,
    package.COMMAND,
    shard.COMMAND,
    verify.COMMAND,
    doctor.COMMAND,
    sign.COMMAND,
    publish.COMMAND,
    evaluate.COMMAND,
    score.COMMAND,
    merge.COMMAND,
    completion.COMMAND,
)


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand and returns the exit code. arguments: by default those of the process."""
    options = parser().parse_args(arguments)
    try:
        with orderly_end(), shown_progress(options.quiet) as options.progress:
            return options.run(options) or 0
    except NemoportError as error:
        print(f"nemoport: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `nemoport transcribe ... | head`
        return 141
    except OSError as error:  # a name that no file can have, a place that may not be read
        print(f"nemoport: {printable(str(error))}", file=sys.stderr)
        return NemoportError.exit_code
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and options.extras and not (error.name or "nemoport").startswith("nemoport"):
            expected, todo = f"those of the extras {options.extras}", f"pip install 'nemoport[{options.extras}]'"
            print(f"nemoport: {not_installed('This command', expected, [error.name or ''], todo)}", file=sys.stderr)
            return UsageError.exit_code
        traceback.print_exc()
        print(f"nemoport: a fault of nemoport itself ({type(error).__name__}). Report it with the lines above.", file=sys.stderr)
        return FAULT


def parser() -> argparse.ArgumentParser:
    """Parses the arguments of every subcommand; `run` of the result is the subcommand's function."""
    return make_parser(COMMANDS)
