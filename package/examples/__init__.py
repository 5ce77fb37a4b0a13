"""Scripts that model cards quote: each transcribes a recording with a consumer of the package alone, without nemoport."""

from __future__ import annotations

from pathlib import Path


def example_text(name: str) -> str:
    """Returns the text of the script `name`.py, without blanks at its end."""
    return Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8").rstrip()
