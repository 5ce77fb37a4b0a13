"""The layout of a web site: the page that transcribes in a browser (web/page), and the package that it opens.

index.html, app.js, worker.js, ...             the page; asr/, ui/: its modules; ort/: onnxruntime-web
config.json, shared/                           as in the layout native
<variant>/{encoder,decoder}_model.onnx[.data]  graphs and weights; .data.000, .data.001, ... where they are large

Any static host can serve the folder; README.md has what a static Space of Hugging Face reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemoport.artifact import DECODER, ENCODER, Artifact
from nemoport.files import scratch_folder
from nemoport.package.copying import copy_present
from nemoport.package.layout import CardFacts, Layout
from nemoport.package.layouts.native import copy_shared, graphs
from nemoport.package.shards import write_shards
from nemoport.web.site import write_page

LARGEST_BYTES = 1_500_000_000  # of a file with weights: a browser gives none of 2 GB or more in one piece
FILES = {
    "index.html`, `app.js`, `worker.js`, `capture.js`, `sw.js`, `style.css`, `icon.svg": "the page",
    "asr/`, `ui/`, `ort/": "its modules; onnxruntime-web",
    "config.json": "every parameter and rule below, machine-readable",
    "<variant>/encoder_model.onnx`, `.onnx.data": "encoder: graph, weights",
    "<variant>/decoder_model.onnx`, `.onnx.data": "prediction network and joint, fused: graph, weights",
    "shared/filterbank.bin`, `.meta": "mel filterbank, f32, row major, and its shape",
    "shared/tokens.txt": "tokens by id",
    "shared/spelling.json": "of tokenizers that spell in their own way: how tokens become text",
    "manifest.json": "gate results; size and sha256 of every file, which the page checks",
}
CTC_FILES = {**FILES, "<variant>/decoder_model.onnx`, `.onnx.data": "CTC decoder: graph, weights"}
HEAD = {
    "sdk": "static",
    "app_file": "index.html",
    "custom_headers": {"cross-origin-embedder-policy": "require-corp", "cross-origin-opener-policy": "same-origin"},
}
PLACE = '<meta name="model" content="" />'


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Writes the page, config.json, shared/ and the variants. Raises UsageError where npm is missing, ArtifactError for a file
    that the build lacks."""
    write_page(folder)
    index = folder / "index.html"
    index.write_text(index.read_text("utf-8").replace(PLACE, PLACE.replace('""', '"./"')), "utf-8")
    copy_shared(build, folder)
    for variant in variants:
        artifact = Artifact.open(build / variant)
        (folder / variant).mkdir()
        for source in (artifact.encoder, artifact.decoder):
            copy_present(source.parent, folder / variant, (source.name, f"{source.name}.data"))
    shard(folder, variants, LARGEST_BYTES)


def shard(folder: Path, variants: Sequence[str], limit_bytes: int) -> None:
    """Divides the weights of each graph that has a file of more than `limit_bytes`. Raises UsageError for a tensor that is
    larger."""
    for graph in (folder / variant / name for variant in variants for name in (ENCODER, DECODER)):
        weights = list(graph.parent.glob(f"{graph.name}.data*"))
        if all(path.stat().st_size <= limit_bytes for path in weights):
            continue
        with scratch_folder(folder) as before:
            for path in (graph, *weights):
                path.rename(before / path.name)
            write_shards(before / graph.name, graph.parent, limit_bytes, graph.name)


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    return """On this machine:

```sh
python -m nemoport.web .
```

On a host: upload the folder as it is, over https. Threads in the browser need the two headers in the head of README.md; where a
host cannot send them, the page's service worker adds them, with the second load. As a static Space of Hugging Face:

```sh
hf upload ORGANISATION/NAME . --repo-type space
```

Audio and text stay in the browser, which keeps the page and a variant that was loaded, and then needs no network."""


LAYOUT = Layout("web", FILES, lay_out, graphs, usage, ctc_files=CTC_FILES, shard=shard, tags=("onnxruntime-web",), head=HEAD)
