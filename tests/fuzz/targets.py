"""Every target."""

from __future__ import annotations

from fuzz import checkpoints, commands, folders, gates, graphs, packages, server, sound

TARGETS = (
    *checkpoints.TARGETS,
    *folders.TARGETS,
    *packages.TARGETS,
    *gates.TARGETS,
    *sound.TARGETS,
    *graphs.TARGETS,
    *commands.TARGETS,
    *server.TARGETS,
)
