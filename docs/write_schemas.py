"""Writes the JSON Schemas of what a build and a package hold, from the types that read them.

python docs/write_schemas.py [FOLDER]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nemoport.apple.graphs import Metadata
from nemoport.artifact import Manifest
from nemoport.config import OfflineConfig, StreamingConfig
from nemoport.package.doctor.check import Report
from nemoport.package.manifest import PackageManifest
from nemoport.schema import json_schema
from nemoport.spec import ModelSpec
from nemoport.tokens import SpellingRule
from nemoport.validate.details import StreamByTime, Texts
from nemoport.validate.stamps import Evaluation

SCHEMAS = {
    "config-streaming": StreamingConfig,  # config.json, of a streaming model
    "config-offline": OfflineConfig,  # ... of an offline one
    "spec": ModelSpec,  # its section `spec`
    "variant-manifest": Manifest,  # manifest.json in the folder of a variant
    "package-manifest": PackageManifest,  # manifest.json of a package, without its `digest`
    "apple-metadata": Metadata,  # metadata.json of a variant for Core AI or Core ML
    "spelling": SpellingRule,  # shared/spelling.json
    "evaluation": Evaluation,  # results/evaluation.json of a build
    "texts": Texts,  # results/details/VARIANT.wer.json
    "doctor": Report,  # what `nemoport doctor --json` prints
    "stream-by-time": StreamByTime,  # results/details/VARIANT.longform.json
}


def main(folder: Path) -> None:
    """Writes one file for each of SCHEMAS into `folder`."""
    folder.mkdir(exist_ok=True)
    for name, kind in SCHEMAS.items():
        text = json.dumps(json_schema(kind), indent=1, sort_keys=True, ensure_ascii=False)
        (folder / f"{name}.schema.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "schemas")
