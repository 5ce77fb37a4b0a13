"""Draws docs/images/terminal.svg, the picture of README: `python docs/draw_terminal.py`.

It runs the command below in a terminal (tmux) and draws what that shows when the command ends. It needs tmux and the packages of
`make setup`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "terminal.svg"
COMMAND = "nemoport run reference/checkpoints/streaming-en.nemo --quick"
COLUMNS, LINES = 104, 32
SESSION, ENDED = "nemoport-picture", "ENDED-"


def tmux(*arguments: str) -> str:
    return subprocess.run(["tmux", "-L", SESSION, *arguments], check=True, capture_output=True, text=True).stdout


def screen(command: str) -> str:
    """What a terminal (of a tmux server of its own) shows after the command, with its colours. Raises RuntimeError if the command
    fails."""
    shell = f"env -u CI PS1='$ ' PATH={Path(sys.executable).parent}:$PATH bash --norc"
    tmux("new-session", "-d", "-s", SESSION, "-x", str(COLUMNS), "-y", str(LINES), "-c", str(ROOT), shell)
    try:
        time.sleep(1)
        tmux("send-keys", "-t", SESSION, f"clear; {command}; echo {ENDED}$?", "Enter")
        while not (ended := re.search(rf"^{ENDED}(\d+)", tmux("capture-pane", "-p", "-t", SESSION), re.MULTILINE)):
            time.sleep(1)
        if ended[1] != "0":
            raise RuntimeError(f"{command}: exit code {ended[1]}")
        shown = tmux("capture-pane", "-p", "-e", "-t", SESSION)
    finally:
        tmux("kill-session", "-t", SESSION)
    return shown.partition(ENDED)[0].strip("\n").replace(f"{ROOT}/", "") + "\n"


def drawn(shown: str, command: str) -> str:
    """The picture of a screen, under the command's line. No font is fetched: a picture asks no other server."""
    console = Console(record=True, width=COLUMNS, file=open("/dev/null", "w"))  # noqa: SIM115 - the console's own
    console.print(Text.from_ansi(shown))
    picture = console.export_svg(title=f"$ {command}", unique_id="terminal")
    picture = re.sub(r"@font-face \{.*?\}\n", "", picture, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in picture.replace("Fira Code, monospace", "monospace").splitlines()) + "\n"


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    chosen = sys.argv[1] if len(sys.argv) > 1 else COMMAND
    PICTURE.write_text(drawn(screen(chosen), chosen), encoding="utf-8")
