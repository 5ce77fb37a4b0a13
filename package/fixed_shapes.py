"""Parts that the layouts of targets with fixed shapes share: the list of files, and the sections of the card on such graphs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from nemoport.apple.graphs import TensorSection, fixed_lookahead, read_metadata
from nemoport.config import transducer_decoder
from nemoport.markdown import table
from nemoport.package.layout import CardFacts, Layout
from nemoport.package.layouts import native

SHARED_FILES = {path: what for path, what in native.FILES.items() if path.startswith("shared/")}


def fixed_shapes_layout(
    name: str,
    files: dict[str, str],
    graphs: Callable[[Path, str, str], tuple[Path, ...]],
    usage: Callable[[CardFacts], str],
    limits: tuple[str, ...],
) -> Layout:
    """Returns the layout of a target whose variants each have a folder beside shared/.

    name: of the target and its runtime; files: path in a variant's folder -> what the file holds; the rest as in Layout.
    """
    return Layout(
        name=name,
        files=_files(files),
        lay_out=native.lay_out,
        graphs=graphs,
        usage=usage,
        runtime=name,
        artifact_folder=native.artifact_folder,
        intro=intro,
        rules=rules,
        limits=limits,
    )


def _files(graphs: dict[str, str]) -> dict[str, str]:
    return {
        "config.json": "the model's parameters: front end, chunks, decoder, languages",
        **{f"<variant>/{path}": what for path, what in graphs.items()},
        "<variant>/metadata.json": "the graphs' inputs and outputs, and the rules below",
        "<variant>/manifest.json": "what the variant was made from, by which recipe and tools",
        **SHARED_FILES,
        "manifest.json": "gate results; size and sha256 of every file",
    }


def intro(facts: CardFacts) -> str:
    """Returns the card's sentence on the one stream and the one lookahead that the graphs are made for, or on the windows of an
    offline model."""
    if windows_s := next(iter(facts.artifacts.values())).manifest.recipe.windows_s:
        return f"Fixed shapes:\n  one recording of up to {' or '.join(map(str, windows_s))} s, zero-padded to that"
    lookahead = fixed_lookahead(next(iter(facts.artifacts.values())))
    chunk_ms = facts.spec.require_streaming().chunk_ms(lookahead, facts.spec.frontend)
    return f"Fixed shapes:\n  one stream, lookahead {lookahead}, chunks of {chunk_ms:g} ms"


def rules(facts: CardFacts) -> str:
    """Returns the card's section on the graphs, as metadata.json of the first variant describes them."""
    variant, artifact = next(iter(facts.artifacts.items()))
    metadata = read_metadata(artifact.folder)
    rows = []
    for graph in metadata["graphs"].values():
        sides = ("<br>".join(map(_shown, side)) for side in (graph["inputs"], graph["outputs"]))
        rows.append((f"`{graph['file']}`", *sides))
    lines = [f"- `{name}`: {rule}." for name, rule in metadata["rules"].items()]
    prompt = facts.config.get("prompt")
    if prompt and prompt["languages"]:
        lines += [f"- Slots of {prompt['slots']}: {json.dumps(prompt['languages'], ensure_ascii=False)}"]
        lines += [f"- Tags: {prompt['tag_rule']}."]
    if ctc := facts.config.get("ctc"):
        lines += [f"- Blank is {ctc['blank_id']}."]
    else:
        decoder = transducer_decoder(facts.config)
        lines += [f"- Blank is {decoder['blank_id']}; at most {decoder['max_symbols_per_frame']} tokens on one encoder frame."]
    head = ("graph", "inputs", "outputs")
    return f"## Graphs\n\nAs in `{variant}`:\n\n{table(head, rows)}\n\n" + "\n".join(lines)


def _shown(tensor: TensorSection) -> str:
    return f"`{tensor['name']}` {tensor['dtype']} {tensor['shape']}"
