"""What a frozen model makes of each text: kept in memory up to a limit, beyond it on disk.

    get(put(key, state)) = state        the same bits, whoever wrote them

On disk each model has a folder of its own, named by the fingerprint of all that its states depend
on: other weights under the same name are another folder.  In it lies one memory-mapped file (LMDB),
which any number of processes of one machine read and write at once; a write is there whole or not
at all.  Every value carries a checksum.  Nothing that is wrong with the disk stops a run: it says
so once and computes again what it cannot keep.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

GIB = 2**30
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_SHAPE = struct.Struct("<BI")  # dtype and width
_CHECKSUM = struct.Struct("<I")  # of the key, the state and its shape
_OURS = re.compile(r"[0-9a-f]{32}(\.damaged)?")
_READERS = 512  # processes and threads that may read one file at once
_open: dict[tuple[int, str], Any] = {}
"""By process and folder: LMDB allows a process one environment a file, and none through a fork."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keep:
    """How much is kept, and where.

    Args:
        memory: GiB in memory.
        disk: GiB on disk, of all models together, for what does not fit into memory; 0: none.
        folder: Where on disk; None: `metalearn/trunk` in the user's cache folder.
    """

    memory: float = 2.0
    disk: float = 10.0
    folder: Path | None = None

    @property
    def place(self) -> Path:
        """The folder on disk."""
        if self.folder is not None:
            return self.folder.expanduser()
        cache = os.environ.get("XDG_CACHE_HOME")
        return (Path(cache) if cache else Path.home() / ".cache") / "metalearn" / "trunk"


class Store:
    """States by key.

    Args:
        keep: How much is kept, and where.
        fingerprint: Names what the states depend on, in 32 hexadecimal digits; it is asked for only
            when memory is full.

    Attributes:
        bytes: Bytes in memory.

    Example:
        >>> store = Store(Keep(disk=0), lambda: "0" * 32)
        >>> store.put({b"a text": torch.ones(2, 3)})
        >>> store.get([b"a text", b"another"]).keys(), store.bytes
        (dict_keys([b'a text']), 24)
    """

    def __init__(self, keep: Keep, fingerprint: Callable[[], str]) -> None:
        self.keep = keep
        self.bytes = 0
        self._fingerprint = fingerprint
        self._memory: dict[bytes, Tensor] = {}
        self._disk: Disk | None = None
        self._asked = keep.disk <= 0

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Tensor]:
        """The states of those keys that are kept; not to be written to."""
        keys = list(keys)
        if self.keep.memory <= 0:
            self._open_disk()
        found = {key: self._memory[key] for key in keys if key in self._memory}
        if self._disk is not None and len(found) < len(set(keys)):
            found |= self._disk.read(key for key in keys if key not in found)
        return found

    def put(self, states: Mapping[bytes, Tensor]) -> None:
        """Keep states `[n, D]` of the CPU."""
        beyond = {}
        for key, state in states.items():
            size = state.numel() * state.element_size()
            if self.bytes + size <= self.keep.memory * GIB:
                self.bytes += size
                self._memory[key] = state
            else:
                beyond[key] = state
        if beyond:
            self._open_disk()
        if beyond and self._disk is not None:
            self._disk.write(beyond)

    def forget(self) -> None:
        """Drop what is in memory."""
        self._memory.clear()
        self.bytes = 0

    def _open_disk(self) -> None:
        """Once; the fingerprint of a large model takes seconds."""
        if not self._asked:
            self._asked = True
            self._disk = Disk(self.keep.place, self._fingerprint(), int(self.keep.disk * GIB))


class Disk:
    """States in a memory-mapped file.

    Args:
        folder: The folder of all models.
        name: The model's own folder within.
        limit: Bytes, of all models together; the longest unused of the others make room.
    """

    def __init__(self, folder: Path, name: str, limit: int) -> None:
        self._folder = folder
        self._name = name
        self._limit = limit
        self._environment: Any = None
        self._full = False
        self._told = False
        self._open()

    def read(self, keys: Iterable[bytes]) -> dict[bytes, Tensor]:
        """Those that are there and whole."""
        return self._guarded(lambda: self._read(list(keys)), "read") or {}

    def write(self, states: Mapping[bytes, Tensor]) -> None:
        """All of them in one transaction, or, where that fails, none."""
        if not self._full:
            self._guarded(lambda: self._write(states), "write")

    def _read(self, keys: list[bytes]) -> dict[bytes, Tensor]:
        found = {}
        with self._environment.begin(buffers=True) as transaction:
            for key in keys:
                hashed = _hashed(key)
                value = transaction.get(hashed)
                state = None if value is None else _unpack(hashed, value)
                if state is not None:
                    found[key] = state
        return found

    def _write(self, states: Mapping[bytes, Tensor]) -> None:
        with self._environment.begin(write=True) as transaction:
            for key, state in states.items():
                hashed = _hashed(key)
                transaction.put(hashed, _pack(hashed, state))

    def _guarded(self, act: Callable[[], Any], what: str) -> Any:
        """What `act` returns; None where the disk does not let it."""
        import lmdb

        if self._environment is None:
            return None
        try:
            try:
                return act()
            except lmdb.MapResizedError:  # another process has a higher limit
                self._environment.set_mapsize(0)
                return act()
        except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError, lmdb.InvalidError):
            self._set_aside()
        except lmdb.MapFullError:
            self._full = True
            self._tell(f"{self._folder} has reached its limit of {self._limit / GIB:.3g} GiB")
        except (lmdb.Error, OSError) as error:
            self._full = what == "write"
            self._tell(f"cannot {what} {self._folder / self._name} ({error})")
        return None

    def _open(self) -> None:
        import lmdb

        path = self._folder / self._name
        key = (os.getpid(), str(path.resolve()))
        try:
            if key not in _open:
                lock = _in_use(path)
                if lock is None:
                    self._set_aside()
                    return
                environment = lmdb.open(
                    str(path),
                    map_size=max(_room(self._folder, self._name, self._limit), 2**16),
                    max_readers=_READERS,
                    readahead=False,
                    meminit=False,
                )
                environment.reader_check()  # slots of processes that were killed
                _open[key] = environment, lock
            self._environment = _open[key][0]
        except (lmdb.Error, OSError) as error:
            self._tell(f"cannot open {path} ({error})")

    def _set_aside(self) -> None:
        """Move a damaged file away and start anew, once."""
        path = self._folder / self._name
        opened = _open.pop((os.getpid(), str(path.resolve())), None)
        self._environment = None
        if opened is not None:
            opened[0].close()
            os.close(opened[1])
        if self._told:
            return
        self._told = True
        aside = path.with_name(f"{self._name}.damaged")
        _log.warning("kept states: %s is damaged; set aside as %s, begun anew", path, aside.name)
        try:
            _removed(aside)
            path.rename(aside)
        except OSError as error:
            _log.warning("kept states: %s cannot be moved (%s); remove it", path, error)
            return
        self._open()

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            _log.warning("kept states: %s; what does not fit into memory is computed again", what)


def _hashed(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=16).digest()


def _pack(key: bytes, state: Tensor) -> bytes:
    raw = state.contiguous().view(torch.uint8).numpy().tobytes()
    raw += _SHAPE.pack(_DTYPES.index(state.dtype), state.shape[-1])
    return raw + _CHECKSUM.pack(zlib.crc32(raw, zlib.crc32(key)))


def _unpack(key: bytes, value: memoryview) -> Tensor | None:
    """The state; None where the value is not what was written."""
    if len(value) <= _SHAPE.size + _CHECKSUM.size:
        return None
    raw = bytearray(value[: -_CHECKSUM.size])
    if value[-_CHECKSUM.size :] != _CHECKSUM.pack(zlib.crc32(raw, zlib.crc32(key))):
        return None
    kind, width = _SHAPE.unpack(raw[-_SHAPE.size :])
    del raw[-_SHAPE.size :]
    return torch.frombuffer(raw, dtype=_DTYPES[kind]).view(-1, width)


def _in_use(path: Path) -> int | None:
    """Mark a folder as in use, by a file descriptor to be kept; None: its file is damaged.

    LMDB trusts what it reads, and dies of some damages.  So whoever comes first checks the file's
    structure, in .3 s a GiB, while those who come later wait.
    """
    while True:
        path.mkdir(parents=True, exist_ok=True)
        os.utime(path)  # the time of its last use
        lock = os.open(path / "use", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _alone(lock) and (path / "data.mdb").exists() and _damaged(path):
                os.close(lock)
                return None
            fcntl.flock(lock, fcntl.LOCK_SH)
        except OSError:
            os.close(lock)
            raise
        if os.fstat(lock).st_nlink:
            return lock
        os.close(lock)  # removed in between, to make room


def _alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _damaged(path: Path) -> bool:
    from lmdb import verify

    try:
        return bool(verify.verify(str(path)))
    except verify.VerifyError:
        return True


def _room(folder: Path, name: str, limit: int) -> int:
    """Bytes for `name`: others go, the longest unused first, until half of the limit is free."""
    sizes = {}
    for path in folder.iterdir():
        with suppress(OSError):  # another process may be removing it
            if _OURS.fullmatch(path.name) and path.name != name:
                sizes[path] = (path.stat().st_mtime, (path / "data.mdb").stat().st_size)
    taken = sum(size for _, size in sizes.values())
    for path in sorted(sizes, key=lambda path: sizes[path]):
        if taken > limit // 2 and _removed(path):
            taken -= sizes[path][1]
    return limit - taken


def _removed(path: Path) -> bool:
    """Delete a folder of ours, unless it is in use."""
    try:
        lock = os.open(path / "use", os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        return True
    try:
        if not _alone(lock):
            return False
        for name in ("data.mdb", "lock.mdb", "use"):
            (path / name).unlink(missing_ok=True)
        with suppress(OSError):
            path.rmdir()
        return True
    finally:
        os.close(lock)
