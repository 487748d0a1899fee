"""A lock that keeps a folder to one process at a time; it ends with its process, however that ends."""

import datetime
import errno
import json
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.errors import UserError

_held: dict[Path, FileLock] = {}
"""The locks that this process holds until it ends."""

UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def hold(path: Path, what: str) -> None:
    """Locks the file `path` for the rest of this process; raises UserError if another process holds it.

    The kernel keeps the lock (over NFS, the server does), so a killed process leaves none behind. `<path>.json`
    says which process holds it.
    """
    if path.absolute() in _held:
        return
    lock, owner = FileLock(path), path.with_name(path.name + ".json")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{what} is in use by {_described(owner)}. Wait until it ends, stop it, or use another folder."
        ) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        print(f"{what} cannot be locked ({error.strerror}): make sure that no other process writes there.", flush=True)
        return
    _held[path.absolute()] = lock
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}), encoding="utf-8")


def _described(owner: Path) -> str:
    try:
        who = json.loads(owner.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']}, since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has not written the file yet
        return "another process"
