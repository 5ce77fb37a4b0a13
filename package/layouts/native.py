"""The layout of nemoport itself and of apps that load danielbodart/nemotron-speech-600m-onnx: a folder a precision.

config.json                                            runtime parameters and rules, for every variant
shared/                                                filterbank, tokens, tokenizer, front end
<variant>/{encoder,decoder}_model.onnx[.data]          graphs and weights, beside the variant's manifest.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemoport.artifact import DECODER, ENCODER, Artifact
from nemoport.errors import ArtifactError
from nemoport.package.copying import copy_artifact, copy_file, copy_present
from nemoport.package.examples import example_text
from nemoport.package.layout import CardFacts, Layout
from nemoport.package.usage import nemoport_commands, prompt_arguments
from nemoport.spec import CTC

SHARED = ("filterbank.bin", "filterbank.meta", "tokens.txt", "preprocessor.config", "frontend.onnx")
# A checkpoint without SentencePiece has no tokenizer.model, and one without a prompt no languages.
SHARED_OPTIONAL = ("tokenizer.model", "spelling.json", "languages.json", "vocab.json", "metadata.json")

FILES = {
    "config.json": "every parameter and rule below, machine-readable",
    "<variant>/encoder_model.onnx`, `.onnx.data": "encoder: graph, weights",
    "<variant>/decoder_model.onnx`, `.onnx.data": "prediction network and joint, fused: graph, weights",
    "<variant>/manifest.json": "what the variant was made from, by which recipe and tools",
    "shared/filterbank.bin`, `.meta": "mel filterbank, f32, row major, and its shape",
    "shared/tokens.txt`, `tokenizer.model": "tokens by id; the SentencePiece model",
    "shared/spelling.json": "of tokenizers that spell in their own way: how tokens become text",
    "shared/languages.json`, `vocab.json`, `metadata.json": "of models with a language prompt: its names, tokens, sizes",
    "shared/preprocessor.config": "parameters of the front end",
    "shared/frontend.onnx": "front end for whole recordings: audio to log-mel",
    "manifest.json": "gate results; size and sha256 of every file",
}
CTC_FILES = {**FILES, "<variant>/decoder_model.onnx`, `.onnx.data": "CTC decoder: graph, weights"}


def artifact_folder(folder: Path, variant: str) -> Path:
    """Returns the folder of a variant in a package of this layout."""
    return folder / variant


def graphs(folder: Path, variant: str, head: str = "") -> tuple[Path, Path]:
    """Returns encoder and decoder of a variant in a package of this layout."""
    return folder / variant / ENCODER, folder / variant / DECODER


def usage(facts: CardFacts) -> str:
    """Returns the card's section on how to run the graphs."""
    variant = next(iter(facts.artifacts))
    command = f"python example.py . {variant} recording.wav{prompt_arguments(facts)}"
    kind = ("native" if facts.spec.streaming else "native_offline") + ("_ctc" if facts.spec.head == CTC else "")
    example = example_text(kind)
    return f"""With nemoport:

{nemoport_commands(facts, variant)}

With onnxruntime alone (`pip install numpy onnxruntime soundfile`), as `{command}`:

```python
{example}
```"""


def lay_out(build: Path, variants: Sequence[str], folder: Path) -> None:
    """Copies config.json, shared/ and the variants. Raises ArtifactError for a file that the build lacks."""
    copy_shared(build, folder)
    for variant in variants:
        copy_artifact(Artifact.open(build / variant), artifact_folder(folder, variant))


def copy_shared(build: Path, folder: Path) -> None:
    """Copies config.json and shared/. Raises ArtifactError for a file that the build lacks."""
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
    copy_present(build / "shared", folder / "shared", (*SHARED, *SHARED_OPTIONAL))


LAYOUT = Layout(
    "native", FILES, lay_out, graphs, usage, ctc_files=CTC_FILES, artifact_folder=artifact_folder, tags=("onnxruntime",)
)
