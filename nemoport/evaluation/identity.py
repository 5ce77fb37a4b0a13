"""What results were made with: an artifact, options, versions, data. Results of other ones are not merged, and not resumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar

from nemoport.artifact import Artifact
from nemoport.errors import UsageError
from nemoport.evaluation.sources import DataSet
from nemoport.files import digest_json, read_json, sha256_file, write_json
from nemoport.language_model import ArpaFile
from nemoport.recognizer import Recognizer
from nemoport.runtimes import runtime_version
from nemoport.schema import CLOSED, Text, check, most

RECORDS = 1  # version of what is recorded of an utterance, and of how it is transcribed
SHARED = ("filterbank.bin", "tokens.txt", "languages.json", "spelling.json")  # that a recognizer reads, where they are there
FILE, TODO = "run.json", "name a new folder, or run it again with what made this one"


@dataclass(frozen=True)
class Settings:
    """How a recognizer is opened, see `Recognizer.open`. threads: of each worker; channel: the one that is read, None: the
    average of all."""

    lookahead: int | None = None
    flush: str = "full"
    provider: str = "cpu"
    threads: int = 1
    pass_s: float | None = None
    language: str | None = None
    beam: int = 1
    hotwords: tuple[str, ...] = ()
    hotword_boost: float | None = None
    language_model: ArpaFile | None = None
    scripts: tuple[str, ...] = ()
    token_mask: str | None = None
    trim_silence: bool = False
    channel: int | None = None
    chunk_frames: int | None = None
    right_frames: int | None = None

    def open(self, folder: Path) -> Recognizer:
        """Opens a variant's folder. Raises ArtifactError, UsageError."""
        return Recognizer.open(folder, **{one.name: getattr(self, one.name) for one in fields(self) if one.name != "channel"})

    def described(self, recognizer: Recognizer) -> dict[str, Any]:
        """What of it is stored: the values that it stands for."""
        mask = sha256_file(Path(self.token_mask)) if self.token_mask else None
        words = self.language_model
        resolved = {
            "language_model": words and f"{sha256_file(words.path)}, weight {words.weight:g}, word bonus {words.word_bonus:g}",
            "lookahead": recognizer.lookahead,
            "pass_s": recognizer.pass_s if recognizer.lookahead is None else None,
            "token_mask": mask,
        }
        return {key: [*value] if isinstance(value, tuple) else value for key, value in (asdict(self) | resolved).items()}


@dataclass(frozen=True)
class Identity:
    """artifact: variant, digest of its manifest and of the shared files; options: see Settings; versions: of what computes;
    data: see DataSet; shard: i/n."""

    __pydantic_config__: ClassVar = CLOSED

    artifact: Annotated[dict[Text, Any], most(16)]
    options: Annotated[dict[Text, Any], most(64)]
    versions: Annotated[dict[Text, Any], most(16)]
    data: Annotated[dict[Text, Any], most(16)]
    shard: Text

    @staticmethod
    def of(artifact: Artifact, recognizer: Recognizer, settings: Settings, data: DataSet, shard: str) -> Identity:
        """artifact: as `recognizer` has opened it, by `settings`."""
        of_artifact, versions = described(artifact)
        return Identity(of_artifact, settings.described(recognizer), versions, data.description, shard)

    def write(self, folder: Path) -> None:
        """Writes run.json. Raises OutputError."""
        write_json(folder / FILE, asdict(self))

    @staticmethod
    def read(folder: Path) -> Identity:
        """Reads run.json. Raises ArtifactError."""
        path = folder / FILE
        return check(Identity, read_json(path, "name a folder that `nemoport evaluate` wrote"), str(path), TODO)

    def check_same(self, other: Identity, folder: Path, *, shard: bool = True) -> None:
        """Raises UsageError naming what differs in the results of `folder`, which are `other`. shard: compare that too."""
        mine, others = (_flat(asdict(one) if shard else asdict(one) | {"shard": ""}) for one in (self, other))
        keys = sorted((mine.keys() | others.keys()) - {"data.name"})  # its digest says more
        if differing := [key for key in keys if mine.get(key) != others.get(key)]:
            raise UsageError(
                f"The results in {folder} are of something else.",
                expected="; ".join(f"{key} {mine.get(key)}" for key in differing[:5]),
                found="; ".join(f"{key} {others.get(key)}" for key in differing[:5]),
                todo=TODO,
            )


def described(artifact: Artifact) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what identifies an artifact, and the versions that run it."""
    shared = {name: sha256_file(artifact.shared / name) for name in SHARED if (artifact.shared / name).is_file()}
    manifest = artifact.manifest
    config = sha256_file(artifact.folder.parent / "config.json")
    digests = {"digest": manifest.digest, "shared": digest_json(shared), "config": config}
    versions = {"nemoport": version("nemoport"), "records": RECORDS, "runtime": runtime_version(manifest.recipe.target)}
    return {"variant": manifest.variant, "checkpoint_sha256": manifest.checkpoint_sha256, **digests}, versions


def _flat(value: dict[str, Any]) -> dict[str, Any]:
    parts = {key: part for key, part in value.items() if isinstance(part, dict)}
    inner = {f"{key}.{name}": one for key, part in parts.items() for name, one in part.items()}
    return {key: one for key, one in value.items() if key not in parts} | inner
