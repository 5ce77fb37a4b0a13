"""The layout of nemoport itself and of the apps that load card 000's packages: a folder a precision, beside shared/.

config.json                                            runtime parameters and rules, for every variant
shared/                                                filterbank, tokens, tokenizer, front end
<variant>/{encoder,decoder}_model.onnx[.data]          graphs and weights, with the variant's manifest.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemoport.artifact import Artifact
from nemoport.errors import ArtifactError
from nemoport.export.copying import copy_file

SHARED = ("filterbank.bin", "filterbank.meta", "tokens.txt", "preprocessor.config", "frontend.onnx")
SHARED_OPTIONAL = ("tokenizer.model",)  # a checkpoint without SentencePiece has none


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
            copy_file(artifact.folder / name, folder / variant / name)
