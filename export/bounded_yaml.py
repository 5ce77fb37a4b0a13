"""Reads a YAML text of a stranger: its size, its depth and what its aliases repeat are bounded before a value is made of it."""

from __future__ import annotations

from typing import Any

import yaml

from nemoport.errors import first_line

MOST_BYTES = 8 << 20  # the config of a model of 16,384 tokens, which lists them twice, has about 0.7 MB
MOST_DEPTH = 40  # NeMo's configs have 5
MOST_NODES = 400_000  # with aliases counted as often as they stand there
LONGEST_PLAIN = 1000  # characters of what is no text; 1:1:1:... is a number to base 60, which takes minutes in 8 MB

# What PyYAML raises for a value that is not what its tag says, beside its own errors: !!int "", !!bool x, !!timestamp x.
_MISTAGGED = (KeyError, IndexError, AttributeError, TypeError, ArithmeticError)

_TOO_MANY = f"more than {MOST_NODES} values, repeated by aliases or written out"
_TEXT = "tag:yaml.org,2002:str"
_Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def load(text: bytes) -> Any:
    """Returns the value of a YAML text of plain values. Raises ValueError with the reason for which it is refused."""
    if len(text) > MOST_BYTES:
        raise ValueError(f"{len(text)} bytes, more than {MOST_BYTES}")
    try:
        _check_events(text)
        return _value(_Loader(text))
    except (yaml.YAMLError, *_MISTAGGED) as error:
        raise ValueError(first_line(error)) from error


def _value(loader: Any) -> Any:
    """Composes the text's nodes, counts them, and makes the value of the same nodes."""
    try:
        if (node := loader.get_single_node()) is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_events(text: bytes) -> None:
    """Reads the text as events, which needs no stack of its own, so that what recurses afterwards has a bound."""
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        nodes += isinstance(event, yaml.NodeEvent)
        if nodes > MOST_NODES:
            raise ValueError(_TOO_MANY)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise ValueError(f"values nested more than {MOST_DEPTH} deep")


def _count(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Nodes below and with `node`, an alias counted with all that it repeats. known: id of a node -> its count, None while it
    is being counted. Raises ValueError above MOST_NODES, or for a node that contains itself."""
    if (key := id(node)) in known:
        if (count := known[key]) is None:
            raise ValueError("a value that contains itself")
        return count
    known[key], count = None, 1
    if isinstance(node, yaml.ScalarNode) and node.tag != _TEXT and len(node.value) > LONGEST_PLAIN:
        raise ValueError(f"a number of {len(node.value)} characters, more than {LONGEST_PLAIN}")
    if isinstance(node, yaml.CollectionNode):
        for part in node.value:
            count += sum(_count(one, known) for one in (part if isinstance(part, tuple) else (part,)))
            if count > MOST_NODES:
                raise ValueError(_TOO_MANY)
    known[key] = count
    return count
