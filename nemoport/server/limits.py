"""What one client may take of a server, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """sessions: live ones at once; batch: streams of one run of the encoder.

    ahead_s: audio that a session is read ahead of real time; what is further ahead waits at the client. waiting_s: audio of a
    session that waits for the model. messages_per_s: that are read of a session in the mean. idle_s: without a message, until a
    session ends; session_s: that it lasts, and of its audio. send_s: in which a client takes an event; events: that wait for one
    client. message_bytes: of a WebSocket; unread_bytes: that wait of a session where a proxy reads all; upload_bytes, upload_s:
    of a recording; uploads: that wait. drain_s: in which sessions may finish when the server ends.
    """

    sessions: int = 64
    batch: int = 32
    ahead_s: float = 30.0
    waiting_s: float = 5.0
    messages_per_s: float = 200.0
    idle_s: float = 30.0
    session_s: float = 4 * 3600.0
    send_s: float = 10.0
    events: int = 256
    message_bytes: int = 1 << 20
    unread_bytes: int = 8 << 20
    upload_bytes: int = 200 << 20
    upload_s: float = 300.0
    uploads: int = 16
    drain_s: float = 30.0
