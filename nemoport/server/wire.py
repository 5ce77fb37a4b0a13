"""What a connection needs of a protocol."""

from __future__ import annotations

from typing import Protocol

from nemoport.errors import NemoportError
from nemoport.server.actions import Action, Event, Start


class Wire(Protocol):
    """A protocol: native.py, realtime.py. start: the settings of a session whose client names none."""

    @property
    def start(self) -> Start: ...

    def opening(self) -> list[str]: ...

    def read(self, message: str | bytes) -> list[tuple[Action, int]]: ...

    def write(self, event: Event) -> list[str]: ...

    def error(self, error: NemoportError) -> str: ...

    def notice(self, seconds: float) -> list[str]: ...
