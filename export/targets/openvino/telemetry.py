"""OpenVINO's converter and NNCF report each use to Google Analytics unless the user has opted out: they are kept from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Within its block nothing is reported, and no id of the user is written into the home folder.

    Each report was a copy of this process, forked with all its memory, for up to three seconds: converting took twice as long.
    """
    with ExitStack() as stack:
        try:
            from openvino_telemetry.utils.opt_in_checker import ConsentCheckResult, OptInChecker
            from openvino_telemetry.utils.sender import TelemetrySender
        except ImportError:  # then both tools report nothing
            pass
        else:
            stack.enter_context(patch.object(OptInChecker, "check", return_value=ConsentCheckResult.DECLINED))
            stack.enter_context(patch.object(TelemetrySender, "send"))  # of an object that was made with consent before
        yield
