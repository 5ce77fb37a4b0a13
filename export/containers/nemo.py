"""A .nemo file as a container: a tar with a config, the weights as torch saves them, and the tokenizer's files."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemoport.errors import CheckpointError, first_line
from nemoport.export import bounded_yaml
from nemoport.export.archive import CONFIG, WEIGHTS, opened, unreadable
from nemoport.export.containers.container import NEMO, Contents, TensorHeader
from nemoport.export.containers.torch_header import read_header
from nemoport.export.kinds import nemo_class_of
from nemoport.files import sha256_file
from nemoport.text import clipped

if TYPE_CHECKING:
    from torch import Tensor

MOST_TOKENIZER_BYTES = 64 << 20  # SentencePiece models of 16,384 pieces have 0.5 MB


@dataclass(frozen=True)
class NemoFile:
    """As `Container`."""

    path: Path

    @property
    def config_name(self) -> str:
        return CONFIG

    @property
    def format(self) -> str:
        return NEMO

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def weights_bytes(self) -> int:
        return self.file_bytes

    @property
    def file_bytes(self) -> int:
        return self.path.stat().st_size

    def sha256(self) -> str:
        return sha256_file(self.path)

    def unreadable(self, found: str, todo: str = "download or save it again") -> CheckpointError:
        return unreadable(self.path, found, todo)

    def read(self) -> Contents:
        with opened(self.path) as archive:
            try:
                config = bounded_yaml.load(archive.read(CONFIG, bounded_yaml.MOST_BYTES))
            except ValueError as error:
                raise self.unreadable(f"{CONFIG}: {clipped(error)}") from error
            if not isinstance(config, dict):
                raise self.unreadable(f"a {CONFIG} that holds {type(config).__name__}, not a mapping")
            section = config.get("tokenizer")
            model = str(section.get("model_path", "")) if isinstance(section, dict) else ""
            tokenizer = archive.read(model.removeprefix("nemo:"), MOST_TOKENIZER_BYTES) if model.startswith("nemo:") else b""
            archive.member(WEIGHTS)
        return Contents(nemo_class_of(config), config, tokenizer)

    def headers(self) -> dict[str, TensorHeader]:
        with opened(self.path) as archive:
            try:
                return read_header(archive.member(WEIGHTS))
            except ValueError as error:
                raise self.unreadable(f"{WEIGHTS}: {clipped(error)}") from error

    def load_weights(self) -> dict[str, Tensor]:
        import torch

        with opened(self.path) as archive:
            try:
                stream = archive.member(WEIGHTS)
                if zipfile.is_zipfile(stream):
                    self._check_zip(zipfile.ZipFile(stream), archive.entries[WEIGHTS].size)
                stream.seek(0)
                weights = torch.load(stream, map_location="cpu", weights_only=True)
            except CheckpointError:
                raise
            except Exception as error:  # torch raises many kinds for a damaged file
                raise self.unreadable(f"{WEIGHTS}: {clipped(first_line(error))}") from error
        named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
        if not named or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
            raise self.unreadable(f"{WEIGHTS}: something else than named tensors")
        for name, tensor in weights.items():
            # A tensor of two bytes that repeats them 10^9 times takes none on disk and 4 GB as float.
            if tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                raise self.unreadable(f"{WEIGHTS}: {clipped(name)} has more values than the file holds for it")
        return {name: tensor.float() for name, tensor in weights.items()}

    def _check_zip(self, parts: zipfile.ZipFile, size: int) -> None:
        """size: bytes of the whole, which torch writes uncompressed."""
        if sum(part.file_size for part in parts.infolist()) > size:
            raise self.unreadable(f"{WEIGHTS}: parts that unpack to more than its {size} bytes")
        if damaged := parts.testzip():  # torch does not verify the checksums that it writes
            raise self.unreadable(f"{WEIGHTS}: {clipped(damaged)} differs from its checksum")
