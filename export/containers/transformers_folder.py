"""A folder of Hugging Face transformers as a container: config.json, tokenizer.json, the processor's config, and weights in
.safetensors. No other file of it is opened, and nothing in it is unpickled or run."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemoport.errors import ArtifactError, CheckpointError
from nemoport.export.containers.container import SAFETENSORS, Contents, TensorHeader
from nemoport.export.containers.safetensors_file import StoredTensor, read_header
from nemoport.export.containers.tokenizer_json import read_tokenizer
from nemoport.export.containers.transformers_config import nemo_form, vocab_size
from nemoport.export.containers.transformers_families import FAMILIES
from nemoport.export.containers.transformers_weights import nemo_name
from nemoport.export.transformers_files import CONFIG, EXTRACTOR, INDEX, PROCESSOR, SHARD, TOKENIZER, WEIGHTS
from nemoport.files import read_json, sha256_file
from nemoport.text import clipped

if TYPE_CHECKING:
    from torch import Tensor

MOST_SHARDS = 1000
SPEECH_LLM = "SALM"  # NeMo's class of a folder with a config.json of its own
_COUNTER = ".num_batches_tracked"  # of batch normalisation in training


@dataclass(frozen=True)
class TransformersFolder:
    """As `Container`."""

    path: Path

    @property
    def config_name(self) -> str:
        return CONFIG

    @property
    def format(self) -> str:
        return SAFETENSORS

    @property
    def name(self) -> str:
        return os.path.basename(os.path.abspath(self.path))

    @property
    def weights_bytes(self) -> int:
        return 4 * sum(tensor.size for tensor in self.tensors().values())

    @property
    def file_bytes(self) -> int:
        return sum(self._file(name).stat().st_size for name in self._names() if self._has(name))

    def sha256(self) -> str:
        """That of a line for each file that is read, in the order of their names: its own sha256, two spaces and its name, as
        `sha256sum` prints them."""
        rows = (f"{sha256_file(self._file(name))}  {name}\n" for name in sorted(self._names()))
        return hashlib.sha256("".join(rows).encode()).hexdigest()

    def unreadable(self, found: str, todo: str = "download or save it again") -> CheckpointError:
        return CheckpointError(
            f"{self.path} cannot be read.",
            expected=f"a complete folder of Hugging Face transformers ({CONFIG}, {TOKENIZER}, {PROCESSOR} or {EXTRACTOR}, and "
            f"{WEIGHTS} or {INDEX} with the files that it names)",
            found=found,
            todo=todo,
        )

    def read(self) -> Contents:
        raw = self._json(CONFIG)
        if not isinstance(model := raw.get("model_type"), str) or model not in FAMILIES:
            name = SPEECH_LLM if "pretrained_llm" in raw else clipped(model) if isinstance(model, str) else ""
            return Contents(name, {}, b"", (f"model_type is {clipped(repr(model))}, not {', '.join(FAMILIES)}",))
        try:
            pieces, tokenizer = read_tokenizer(self._json(TOKENIZER), vocab_size(raw))
        except ValueError as error:
            raise self.unreadable(f"{TOKENIZER}: {error}", "save it again with transformers, with the tokenizer") from error
        try:
            config, problems = nemo_form(raw, self._processor(), pieces)
        except ValueError as error:
            raise self.unreadable(str(error), "save it again with transformers") from error
        self.tensors()
        return Contents(model, config, tokenizer, tuple(problems))

    def headers(self) -> dict[str, TensorHeader]:
        return {nemo_name(name): TensorHeader(tensor.dtype, tensor.shape) for name, tensor in self.tensors().items()}

    def load_weights(self) -> dict[str, Tensor]:
        import torch

        weights: dict[str, Tensor] = {}
        for name, tensor in self.tensors().items():
            if (nemo := nemo_name(name)) in weights:
                raise self.unreadable(f"{clipped(name)}, which is {nemo} in NeMo, as another tensor is")
            try:
                weights[nemo] = torch.from_numpy(tensor.load())
            except ValueError as error:
                raise self.unreadable(str(error)) from error
        return weights

    def tensors(self) -> dict[str, StoredTensor]:
        """The tensors by transformers' names, from the headers. Raises CheckpointError."""
        found: dict[str, StoredTensor] = {}
        stated = self._stated()
        for file in self._weight_files(stated):
            try:
                header = read_header(self._file(file))
            except ValueError as error:
                raise self.unreadable(f"{file}: {error}") from error
            expected = {name for name, of in stated.items() if of == file} if stated else header.keys()
            if differing := sorted(header.keys() ^ expected):
                raise self.unreadable(f"{INDEX} and {file} differ in {clipped(differing[0])}")
            for name, tensor in header.items():
                if tensor.dtype == "I64" and not name.endswith(_COUNTER):
                    raise self.unreadable(f"{file}: {clipped(name)} holds whole numbers")
            found |= header
        return found

    def _weight_files(self, stated: dict[str, str]) -> list[str]:
        return sorted(set(stated.values())) if stated else [WEIGHTS]

    def _stated(self) -> dict[str, str]:
        """Tensor -> file of the index; empty where one file holds all, which transformers prefers too."""
        if self._has(WEIGHTS) or not self._has(INDEX):
            return {}
        stated = self._json(INDEX).get("weight_map")
        names = isinstance(stated, dict) and all(isinstance(name, str) and SHARD.fullmatch(name) for name in stated.values())
        if not isinstance(stated, dict) or not names or not 0 < len(set(stated.values())) <= MOST_SHARDS:
            raise self.unreadable(
                f"{INDEX}: a weight_map that does not name .safetensors files of the folder, 1 to {MOST_SHARDS}"
            )
        return stated

    def _names(self) -> list[str]:
        """Every file that is read."""
        stated = self._stated()
        given = [name for name in (PROCESSOR, EXTRACTOR) if self._has(name)]
        return [CONFIG, TOKENIZER, *given, *([INDEX] if stated else []), *self._weight_files(stated)]

    def _processor(self) -> dict:
        """The processor's config; older versions of transformers write its feature extractor into a file of its own."""
        found = self._json(PROCESSOR) if self._has(PROCESSOR) else {}
        if "feature_extractor" not in found and self._has(EXTRACTOR):
            return {**found, "feature_extractor": self._json(EXTRACTOR)}
        if not found:
            raise self.unreadable(f"no {PROCESSOR} and no {EXTRACTOR}", "save it again with transformers, with the processor")
        return found

    def _has(self, name: str) -> bool:
        return (self.path / name).exists()

    def _json(self, name: str) -> dict:
        try:
            return read_json(self._file(name), "")
        except ArtifactError as error:
            raise self.unreadable(f"{name}: {clipped(error.found)}, not {error.expected}") from error

    def _file(self, name: str) -> Path:
        """The path of a file of the folder. Raises CheckpointError where there is none, or where it is a link that leaves it."""
        file = self.path / name
        if not file.is_file():
            raise self.unreadable(f"no {name}")
        root, place = self.path.resolve(), file.resolve()
        # In the Hub's cache a folder of a commit has links to files beside it.
        blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
        if not (place.is_relative_to(root) or place.is_relative_to(blobs)):
            raise self.unreadable(f"{name}, a link to a file outside of the folder", "copy the file itself into the folder")
        return file
