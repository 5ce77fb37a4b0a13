"""What a checkpoint is, without its weights: its container, its model, its sizes, and why it is not exported, if it is not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemoport.errors import CheckpointError
from nemoport.export.checkpoint import OTHER_FORM, Checkpoint, reasons_of, without_hash
from nemoport.export.containers import Container, container_at
from nemoport.export.containers.container import Contents
from nemoport.export.kinds import is_hybrid, kind_of
from nemoport.export.other_models import what_it_is
from nemoport.export.source import resolve
from nemoport.spec import CTC

PARTS = {
    "encoder.": "encoder",
    "decoder.": "decoder",
    "joint.": "decoder",
    "ctc_decoder.": "CTC decoder",
    "prompt_kernel.": "prompt",
}


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is.

    file_bytes: of all its files; model: NeMo's class or transformers' model type; what: a description of one that is not
    exported, "" of others; kind: its kind, or the nearest one; heads: those that can be chosen, the default first.

    checkpoint: None where it is not exported, for `reasons`, about which `todo` says what to do. sizes: key of the config, as
    written -> value, of both. parameters: part of the model -> number of its weights, and dtypes -> number of tensors; both empty
    where the headers of the weights cannot be read, as `unread` says.
    """

    path: Path
    base_model: str
    format: str
    file_bytes: int
    model: str
    what: str
    kind: str
    heads: tuple[str, ...]
    checkpoint: Checkpoint | None = None
    sizes: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    unread: str = ""
    reasons: tuple[str, ...] = ()
    todo: str = ""


def inspect(name: str, head: str = "") -> Inspection:
    """Inspects a checkpoint by its path or Hub id. head: as of `read_checkpoint`. Reads no weights, and needs neither torch nor
    NeMo. Raises CheckpointError for one that cannot be read, UsageError for a head that it does not have."""
    path, base_model = resolve(name)
    container = container_at(path)
    contents = container.read()
    checkpoint, reasons, todo = None, (), ""
    try:
        checkpoint = without_hash(name, head)
    except CheckpointError as error:
        reasons, todo = _reasons(contents) or (error.found,), error.todo
    parameters, dtypes, unread = _weights(container)
    kind, heads = _kind(contents.config, checkpoint)
    return Inspection(
        path,
        base_model,
        container.format,
        container.file_bytes,
        contents.model,
        "" if checkpoint else what_it_is(contents.model),
        kind,
        heads,
        checkpoint,
        _sizes(contents.config),
        parameters,
        dtypes,
        unread,
        reasons,
        todo,
    )


def _reasons(contents: Contents) -> tuple[str, ...]:
    try:
        return tuple(reasons_of(contents, contents.config))
    except OTHER_FORM:  # what is wrong is in the error that was raised
        return ()


def _kind(config: dict, checkpoint: Checkpoint | None) -> tuple[str, tuple[str, ...]]:
    """The kind, or the nearest one of a model with an encoder of such a kind, and the heads that can be chosen."""
    if checkpoint is None:
        try:
            return (kind_of(config).name if isinstance(config.get("encoder"), dict) else ""), ()
        except OTHER_FORM:
            return "", ()
    kind = checkpoint.spec.kind
    return kind, (kind_of(config).head, CTC) if is_hybrid(config) else (checkpoint.spec.head,)


def _sizes(config: dict) -> dict[str, Any]:
    """Numbers of a config that may be another model's."""
    found = {}
    for section, keys in (("encoder", ("n_layers", "d_model", "n_heads")), ("preprocessor", ("sample_rate", "features"))):
        values = config.get(section)
        found |= {key: values[key] for key in keys if isinstance(values, dict) and _is_size(values.get(key))}
    return found


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 32


def _weights(container: Container) -> tuple[dict[str, int], dict[str, int], str]:
    """Weights of each part, tensors of each dtype, and why there are none. Buffers of the front end are no weights."""
    try:
        headers = container.headers()
    except CheckpointError as error:
        return {}, {}, error.found
    parts: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    for name, header in headers.items():
        if name.startswith("preprocessor.") or name.endswith((".num_batches_tracked", ".running_mean", ".running_var")):
            continue
        parts[next((part for prefix, part in PARTS.items() if name.startswith(prefix)), "other")] += header.size
        dtypes[header.dtype] += 1
    return dict(parts), dict(dtypes.most_common()), ""
