"""How the layouts of the targets with fixed shapes arrange their variants, and what the card says of such graphs."""

from __future__ import annotations

import json

from nemoport.apple.graphs import METADATA, fixed_lookahead
from nemoport.files import read_json
from nemoport.markdown import table
from nemoport.package.layout import CardFacts
from nemoport.package.layouts import native

SHARED_FILES = {path: what for path, what in native.FILES.items() if path.startswith("shared/")}


def files(graphs: dict[str, str]) -> dict[str, str]:
    """The card's list. graphs: path -> what it holds."""
    return {
        "config.json": "the model's parameters: front end, chunks, decoder, languages",
        **{f"<variant>/{path}": what for path, what in graphs.items()},
        "<variant>/metadata.json": "the graphs' inputs and outputs, and the rules below",
        "<variant>/manifest.json": "what the variant was made from, by which recipe and tools",
        **SHARED_FILES,
        "manifest.json": "gate results; size and sha256 of every file",
    }


def intro(facts: CardFacts) -> str:
    lookahead = fixed_lookahead(next(iter(facts.artifacts.values())))
    chunk_ms = facts.spec.require_streaming().chunk_ms(lookahead, facts.spec.frontend)
    return f"Fixed shapes:\n  one stream, lookahead {lookahead}, chunks of {chunk_ms:g} ms"


def rules(facts: CardFacts) -> str:
    """The card's section on the graphs, as metadata.json has it; of all variants the shapes are the first one's."""
    variant, artifact = next(iter(facts.artifacts.items()))
    metadata = read_json(artifact.folder / METADATA, "export again")
    rows = []
    for graph in metadata["graphs"].values():
        sides = ("<br>".join(_shown(one) for one in graph[side]) for side in ("inputs", "outputs"))
        rows.append((f"`{graph['file']}`", *sides))
    lines = [f"- `{name}`: {rule}." for name, rule in metadata["rules"].items()]
    languages = facts.config.get("prompt", {}).get("languages")
    if languages:
        lines += [f"- Slots of {facts.config['prompt']['slots']}: {json.dumps(languages, ensure_ascii=False)}"]
        lines += [f"- Tags: {facts.config['prompt']['tag_rule']}."]
    decoder = facts.config["decoder"]
    lines += [f"- Blank is {decoder['blank_id']}; at most {decoder['max_symbols_per_frame']} tokens on one encoder frame."]
    head = ("graph", "inputs", "outputs")
    return f"## Graphs\n\nAs in `{variant}`:\n\n{table(head, rows)}\n\n" + "\n".join(lines)


def _shown(tensor: dict) -> str:
    return f"`{tensor['name']}` {tensor['dtype']} {tensor['shape']}"
