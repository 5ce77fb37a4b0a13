"""What a worker does: it opens the artifact, and transcribes utterances one at a time, so that none depends on its neighbours."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoport.artifact import Artifact
from nemoport.audio import open_audio
from nemoport.errors import ArtifactError, NemoportError, UsageError, first_line
from nemoport.evaluation.identity import Settings, described
from nemoport.evaluation.item import Item
from nemoport.hub_package import variant_folder
from nemoport.text import clipped
from nemoport.variant import instruction_set

Record = dict[str, Any]  # of an utterance: Item.known, with text, languages and audio_seconds, or with error; and its times


@dataclass(frozen=True)
class Opening:
    """What a worker needs. place, variant: of the artifact, as `nemoport.hub_package.variant_folder` takes them; artifact,
    versions: what it must be; probe: a file of the data set, which a machine without its disk does not have; None: no check."""

    place: str
    variant: str | None
    settings: Settings
    artifact: dict[str, Any]
    versions: dict[str, Any]
    probe: str | None = None


class Transcriber:
    """An artifact that is open in a worker. about: the worker's name, and the instruction set of its machine."""

    def __init__(self, opening: Opening):
        """Raises ArtifactError for another or a damaged artifact, UsageError for other versions and for absent audio."""
        artifact = Artifact.open(variant_folder(opening.place, opening.variant))
        found = described(artifact)
        if found != (opening.artifact, opening.versions):
            expected, here = f"{opening.artifact}, {opening.versions}", f"{found[0]}, {found[1]}"
            todo = "install the same versions and copy the same package to every machine"
            raise ArtifactError(f"{socket.gethostname()} has something else.", expected=expected, found=here, todo=todo)
        artifact.verify_files()
        if opening.probe and not Path(opening.probe).is_file():
            what = f"{socket.gethostname()} does not have the audio."
            todo = "mount it at the same place on every machine"
            raise UsageError(what, expected=opening.probe, found="no such file", todo=todo)
        self._recognizer, self._channel = opening.settings.open(artifact.folder), opening.settings.channel
        self.about = {"worker": f"{socket.gethostname()}/{os.getpid()}", "instruction_set": instruction_set()}

    def record(self, item: Item) -> Record:
        """Transcribes an utterance. One that cannot be used has an error in place of a text."""
        wall, processor = time.perf_counter(), time.process_time()
        try:
            result = self._transcribed(item)
        except NemoportError as error:
            result = {"error": str(error)}
        except Exception as error:  # a fault of nemoport or of a library: it fails this utterance, and is named
            result = {"error": f"{type(error).__name__}: {clipped(first_line(error), 500)}"}
        times = {"work_seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}
        return item.known() | result | {key: round(value, 6) for key, value in times.items()} | self.about

    def _transcribed(self, item: Item) -> Record:
        recognizer, rate_hz = self._recognizer, self._recognizer.sample_rate_hz
        offset_s, duration_s = item.offset_s, item.duration_s
        audio = open_audio(item.path, rate_hz, channel=self._channel, offset_s=offset_s, duration_s=duration_s)
        language = (item.prompt_language or None) if recognizer.session.spec.prompt else None
        (found,) = recognizer.transcribe([(item.id, audio, language)])
        return {"text": found.text, "languages": [*found.languages], "audio_seconds": found.audio_seconds}
