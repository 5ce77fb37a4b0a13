"""A folder under examination: what checks share, so that every graph is opened once."""

from __future__ import annotations

from dataclasses import dataclass, field

from nemoport.errors import ArtifactError, NemoportError
from nemoport.foreign.adapter import Adapter
from nemoport.foreign.folder import ForeignFolder, ForeignModel
from nemoport.foreign.session import ForeignSession, open_encoder, open_session
from nemoport.foreign.spec import spec_of
from nemoport.package.doctor.consumers import Consumer
from nemoport.spec import ModelSpec


@dataclass
class Opened:
    """A model in onnxruntime. session: None where decoder and joint are missing; error: why it could not be opened."""

    encoder: Adapter | None = None
    spec: ModelSpec | None = None
    session: ForeignSession | None = None
    error: NemoportError | None = None


@dataclass
class Examined:
    """consumer: by which the package is to be run, where one is named; static: graphs are not run."""

    folder: ForeignFolder
    consumer: Consumer | None = None
    static: bool = False
    _opened: dict[str, Opened] = field(default_factory=dict)

    def spec(self, model: ForeignModel) -> ModelSpec | None:
        """The spec that follows from the graphs alone; None where they do not state it."""
        try:
            return spec_of(model, self.folder)
        except ArtifactError:
            return None

    def opened(self, model: ForeignModel) -> Opened:
        """Opens a model, or an encoder that has no decoder. Keeps the last one alone: each may take gigabytes."""
        if model.name not in self._opened:
            self._opened.clear()
            self._opened[model.name] = self._open(model)
        return self._opened[model.name]

    def _open(self, model: ForeignModel) -> Opened:
        damaged = model.encoder.ports.swapped or any(part.graph.damage for part in model.parts)  # other checks name that
        if self.static or damaged:
            return Opened()
        try:
            if not model.scores:
                encoder, spec = open_encoder(model, self.folder)
                return Opened(encoder, spec)
            session = open_session(model, self.folder)
            return Opened(session.encoder, session.spec, session)
        except NemoportError as error:
            return Opened(error=error)
