"""Container: how a checkpoint is read, whatever it is stored in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nemoport.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


NEMO, SAFETENSORS = "nemo", "safetensors"


@dataclass(frozen=True)
class Contents:
    """What a container holds but for the weights.

    model: NeMo's class or transformers' model type; config: in the form of NeMo's model_config.yaml; tokenizer: bytes of the
    SentencePiece model, empty where there is none;
    problems: reasons, found by the container alone, for which its model is not exported.
    """

    model: str
    config: dict = field(repr=False)
    tokenizer: bytes = field(repr=False)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class TensorHeader:
    """A tensor of a checkpoint. dtype: as safetensors name it, F32, F16, BF16, ..."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class Container(Protocol):
    """A checkpoint on disk. path: of its file or folder; config_name: of the file that messages name for the config."""

    @property
    def path(self) -> Path: ...

    @property
    def config_name(self) -> str: ...

    @property
    def format(self) -> str:
        """NEMO or SAFETENSORS."""
        ...

    @property
    def name(self) -> str:
        """Name that builds of it have, without a suffix."""
        ...

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights' files."""
        ...

    @property
    def file_bytes(self) -> int:
        """Bytes of all files that are read."""
        ...

    def sha256(self) -> str:
        """Hash of all that is read of it, in hexadecimal. Raises CheckpointError."""
        ...

    def read(self) -> Contents:
        """Reads all but the weights. Raises CheckpointError."""
        ...

    def headers(self) -> dict[str, TensorHeader]:
        """Reads types and shapes of the tensors by NeMo's names, and no weights. Raises CheckpointError."""
        ...

    def load_weights(self) -> dict[str, Tensor]:
        """Loads NeMo's name -> f32 tensor, on the CPU. Raises CheckpointError."""
        ...

    def unreadable(self, found: str, todo: str = "download or save it again") -> CheckpointError:
        """The error for a damaged one. found: what is wrong with it."""
        ...
