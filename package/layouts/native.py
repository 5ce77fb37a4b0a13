"""The layout of nemoport itself and of the apps that load card 000's packages: a folder a precision, beside shared/.

config.json                                            runtime parameters and rules, for every variant
shared/                                                filterbank, tokens, tokenizer, front end
<variant>/{encoder,decoder}_model.onnx[.data]          graphs and weights, with the variant's manifest.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemoport.artifact import DECODER, ENCODER, Artifact
from nemoport.errors import ArtifactError
from nemoport.package.copying import copy_file
from nemoport.package.examples import example_text
from nemoport.package.layout import CardFacts, Layout

SHARED = ("filterbank.bin", "filterbank.meta", "tokens.txt", "preprocessor.config", "frontend.onnx")
# A checkpoint without SentencePiece has no tokenizer.model, and one without a prompt no languages.
SHARED_OPTIONAL = ("tokenizer.model", "languages.json", "vocab.json", "metadata.json")

FILES = {
    "config.json": "every parameter and rule below, machine-readable",
    "<variant>/encoder_model.onnx`, `.onnx.data": "encoder: graph, weights",
    "<variant>/decoder_model.onnx`, `.onnx.data": "prediction network and joint, fused: graph, weights",
    "<variant>/manifest.json": "what the variant was made from, by which recipe and tools",
    "shared/filterbank.bin`, `.meta": "mel filterbank, f32, row major, and its shape",
    "shared/tokens.txt`, `tokenizer.model": "tokens by id; the SentencePiece model",
    "shared/languages.json`, `vocab.json`, `metadata.json": "of models with a language prompt: its names, tokens, sizes",
    "shared/preprocessor.config": "parameters of the front end",
    "shared/frontend.onnx": "front end for whole recordings: audio to log-mel",
    "manifest.json": "gate results; size and sha256 of every file",
}


def artifact_folder(folder: Path, variant: str) -> Path:
    """Where a variant stands in a package of this layout."""
    return folder / variant


def graphs(folder: Path, variant: str) -> tuple[Path, Path]:
    """(encoder, decoder) of a variant in a package of this layout."""
    return folder / variant / ENCODER, folder / variant / DECODER


def usage(facts: CardFacts) -> str:
    variant, artifact = next(iter(facts.artifacts.items()))
    told = " --language auto" if artifact.spec.prompt else ""
    command = f"python example.py . {variant} recording.wav" + (
        f" {facts.config['encoder']['default_lookahead']} auto" if artifact.spec.prompt else ""
    )
    example = example_text("native" if artifact.spec.streaming else "native_offline")
    return f"""With nemoport:

```sh
nemoport verify .
nemoport transcribe {variant}{told} recording.wav
```

With onnxruntime alone (`pip install numpy onnxruntime soundfile`), as `{command}`:

```python
{example}
```"""


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Raises ArtifactError for a file that the build lacks."""
    copy_file(build / "config.json", folder / "config.json")
    (folder / "shared").mkdir()
    missing = [name for name in SHARED if not (build / "shared" / name).is_file()]
    if missing:
        raise ArtifactError(
            f"{build / 'shared'} is incomplete.",
            expected=", ".join(SHARED),
            found=f"no {', '.join(missing)}",
            todo=f"remove {build} and run `nemoport export`",
        )
    for name in (*SHARED, *SHARED_OPTIONAL):
        if (build / "shared" / name).is_file():
            copy_file(build / "shared" / name, folder / "shared" / name)
    for variant in variants:
        artifact = Artifact.open(build / variant)
        (folder / variant).mkdir()
        for name in ["manifest.json", *(entry.path for entry in artifact.manifest.files.values())]:
            (folder / variant / name).parent.mkdir(parents=True, exist_ok=True)  # some targets' files are folders
            copy_file(artifact.folder / name, folder / variant / name)


LAYOUT = Layout("native", FILES, lay_out, graphs, usage, artifact_folder=artifact_folder)
