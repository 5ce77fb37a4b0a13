"""Takes from this process what NeMo does not need for a stranger's checkpoint: the network, and writing to other folders.

Each restriction is one that a process may lay on itself without being privileged, and that none of its threads and children can
take off. https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

NETWORK, FILES = "no network", "writes to its own folder only"
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # flags of unshare(2)
_NO_NEW_PRIVILEGES, _END_WITH_PARENT, _KILL = 38, 1, 9  # prctl(2), and a signal
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls of Landlock, the same on every architecture
# Rights of Landlock, as bits. Reading and executing stay: Python's packages may be anywhere.
_WRITE_FILE, _REMOVE, _MAKE, _MOVE, _TRUNCATE, _DEVICE = 1 << 1, 0b11 << 4, 0b1111111 << 6, 1 << 13, 1 << 14, 1 << 15
_TCP = 0b11
_FORBIDDEN = {f"socket.{name}" for name in ("connect", "bind", "sendto", "sendmsg", "getaddrinfo", "gethostbyname")}


def confine(folder: Path) -> set[str]:
    """Restricts this process and all that it starts; call it before there is a second thread. folder: an existing one, which may
    be written to.

    Returns which of NETWORK and FILES the system enforces. Where it enforces no restriction of the network, Python's own socket
    module refuses connections, which holds against Python code only.
    """
    sys.addaudithook(_refuse_network)
    if sys.platform != "linux":
        return set()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_END_WITH_PARENT, _KILL, 0, 0, 0)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    held = set()
    if _unshare_network(libc):
        held.add(NETWORK)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version >= 1 and _landlock(libc, version, folder):
        held.add(FILES)
    return held


def _refuse_network(event: str, arguments: tuple) -> None:
    if event in _FORBIDDEN:
        raise PermissionError(f"{event}: a checkpoint is restored without a network")


def _unshare_network(libc: ctypes.CDLL) -> bool:
    """Moves this process into a network of its own, in which there is nothing."""
    if libc.unshare(_NEW_NETWORK) == 0:  # of a privileged process
        return True
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_USER | _NEW_NETWORK) != 0:
        return False
    try:  # so that files keep their owner's name
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:
        pass
    return True


def _landlock(libc: ctypes.CDLL, version: int, folder: Path) -> bool:
    rights = _WRITE_FILE | _REMOVE | _MAKE
    rights |= (_MOVE if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0) | (_DEVICE if version >= 5 else 0)
    handled = struct.pack("=QQ", rights, _TCP) if version >= 4 else struct.pack("=Q", rights)
    ruleset = libc.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return False
    try:
        file = rights & (_WRITE_FILE | _TRUNCATE | _DEVICE)
        return (
            _allow(libc, ruleset, folder, rights)
            and _allow(libc, ruleset, Path("/dev/null"), file)
            and libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
        )
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> bool:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, place), 0) == 0
    finally:
        os.close(place)
