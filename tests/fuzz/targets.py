"""Every target."""

from __future__ import annotations

from fuzz import checkpoints, commands, gates, graphs, packages, sound

TARGETS = (*checkpoints.TARGETS, *packages.TARGETS, *gates.TARGETS, *sound.TARGETS, *graphs.TARGETS, *commands.TARGETS)
