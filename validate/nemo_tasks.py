"""The confined process that nemo_process.py starts: restores checkpoints in NeMo and records their runs, or exports them.

    python -m nemoport.validate.nemo_tasks FOLDER

FOLDER is the one that it may write to. Standard input has one task a line, a JSON object. Standard output has one JSON object a
line: {"progress": line, or the fields of a Step}, {"result": name}, and at a task's end {"error": fields of a NemoportError} or
{"done": true}.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nemoport.validate.confine import FILES, NETWORK, confine

Report = Callable[[str, Any], None]


def main() -> None:
    """Confines this process and does the tasks of standard input until its end."""
    held = confine(Path(sys.argv[1]))
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(tasks,), daemon=True).start()
    # What libraries print belongs to the user, not among the lines for the caller.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def report(kind: str, value: Any) -> None:
        lines.write(json.dumps({kind: value}) + "\n")

    missing = {NETWORK, FILES} - held
    how = f"not enforced by this system: {', '.join(sorted(missing))}" if missing else f"{NETWORK}, {FILES}"
    report("progress", f"NeMo runs in a process of its own ({how})")
    while True:
        _do(json.loads(tasks.get()), report)


def _do(task: dict[str, Any], report: Report) -> None:
    from nemoport.errors import CheckpointError, NemoportError
    from nemoport.export.checkpoint import read_checkpoint
    from nemoport.progress import Step
    from nemoport.spec import ModelSpec
    from nemoport.validate import baseline, oracle

    try:
        spec = ModelSpec.from_dict(task["spec"])
        checkpoint = read_checkpoint(task["checkpoint"], spec.head)
        if checkpoint.sha256 != task["sha256"]:
            raise CheckpointError(f"{checkpoint.path} was changed while it was read.", todo="run it again")
        checkpoint = replace(checkpoint, spec=spec)  # of a profile, perhaps
        work = {"record": oracle.record_in_nemo, "export": baseline.export_in_nemo}[task["task"]]

        def progress(one: str | Step) -> None:
            report("progress", one if isinstance(one, str) else asdict(one))

        for name in work(checkpoint, task, Path(task["folder"]), progress):
            report("result", name)
    except NemoportError as error:
        fields = {name: getattr(error, name) for name in ("what", "expected", "found", "todo")}
        report("error", fields | {"kind": type(error).__name__})
    else:
        report("done", True)


def _read(tasks: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        tasks.put(line)
    os._exit(0)  # the caller has ended, or was killed


if __name__ == "__main__":
    main()
