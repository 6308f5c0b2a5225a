"""What is kept of texts: in memory, on disk, between processes, and when the disk fails."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from meta_models import store as module
from meta_models.store import Keep, Store

NAME = "0123456789abcdef" * 2
ROW = 4 * 3 * 8  # bytes of one state of the tests


def states(count: int, first: int = 0) -> dict[bytes, Tensor]:
    """Some states of four tokens, each of other numbers."""
    return {
        f"text {i}".encode(): torch.arange(12.0, dtype=torch.float64).view(4, 3) + i
        for i in range(first, first + count)
    }


def equal(one: dict[bytes, Tensor], other: dict[bytes, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def store(folder: Path, *, memory: float = 0.0, disk: float = 0.1, name: str = NAME) -> Store:
    return Store(Keep(memory, disk, folder), lambda: name)


def forgotten() -> None:
    """What a new process knows of open files: nothing."""
    for environment, lock in module._open.values():
        environment.close()
        os.close(lock)
    module._open.clear()


@pytest.fixture(autouse=True)
def _fresh():
    forgotten()
    yield
    forgotten()


def in_process(code: str, folder: Path) -> subprocess.Popen[str]:
    """Starts `code` in a process of its own, with the names of this file and `folder`."""
    lines = ["import sys; sys.path.insert(0, '')", "from pathlib import Path"]
    lines += [f"folder = Path({str(folder)!r})", f"exec(open({__file__!r}).read())", code]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def said(process: subprocess.Popen[str]) -> str:
    """What a process that ends well has said."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out + err


def test_memory_comes_first_and_the_disk_takes_the_rest(tmp_path: Path) -> None:
    asked = []
    kept = Store(Keep(3 * ROW / 2**30, 0.1, tmp_path), lambda: asked.append(1) or NAME)

    kept.put(states(3))
    assert kept.bytes == 3 * ROW and not asked and not list(tmp_path.iterdir())

    kept.put(states(4, first=3))
    assert kept.bytes == 3 * ROW and asked == [1]
    assert equal(kept.get([*states(7), b"unknown"]), states(7))


def test_without_a_disk_nothing_is_written(tmp_path: Path) -> None:
    kept = store(tmp_path, memory=2 * ROW / 2**30, disk=0)
    kept.put(states(4))
    assert equal(kept.get(states(4)), states(2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_is_on_disk_has_the_same_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    state = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    state[0, 0] = float("nan")
    store(tmp_path).put({b"x": state})
    forgotten()

    found = store(tmp_path).get([b"x"])[b"x"]

    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), state.view(torch.uint8))


def test_another_model_finds_nothing(tmp_path: Path) -> None:
    store(tmp_path).put(states(2))
    assert not store(tmp_path, name=NAME[::-1]).get(states(2))


def test_the_default_folder_is_the_users_cache(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Keep().place == tmp_path / "metalearn" / "trunk"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Keep().place == tmp_path / "home" / ".cache" / "metalearn" / "trunk"
    assert Keep(folder=Path("~/x")).place == tmp_path / "home" / "x"


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    code = "kept = store(folder)\nfor i in range({}, {}, 5): kept.put(states(8, first=i))"
    ranges = [(0, 200), (100, 300)]
    writers = [in_process(code.format(*r), tmp_path) for r in ranges]
    assert [said(writer) for writer in writers] == ["", ""]
    assert equal(store(tmp_path).get(states(303)), states(303))


def test_a_writer_that_is_killed_leaves_what_it_had_finished(tmp_path: Path) -> None:
    code = """
kept = store(folder)
kept.put(states(20))
with kept._disk._environment.begin(write=True) as transaction:
    for i in range(10**4):
        transaction.put(b"%d" % i, bytes(4000))
    print("writing", flush=True)
    sys.stdin.read()
"""
    writer = in_process(code, tmp_path)
    assert writer.stdout and writer.stdin
    assert writer.stdout.readline() == "writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()

    kept = store(tmp_path)
    assert equal(kept.get(states(20)), states(20))
    kept.put(states(5, first=20))
    assert equal(kept.get(states(25)), states(25))


def test_a_forked_child_opens_its_own(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.put(states(2))
    code = """
import os
kept = store(folder)
found = kept.get(states(2))
child = os.fork()
if not child:
    kept.put(states(1, first=2))
    os._exit(0 if equal(kept.get(states(3)), states(3)) else 1)
assert os.waitpid(child, 0)[1] == 0
assert equal(kept.get(states(3)), states(3))
"""
    assert not said(in_process(code, tmp_path))


def changed(path: Path, key: bytes, change: Callable[[bytes], bytes]) -> None:
    import lmdb

    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        hashed = module._hashed(key)
        value = transaction.get(hashed)
        assert value is not None
        transaction.put(hashed, change(value))


@pytest.mark.parametrize(
    "change",
    [
        lambda value: bytes([value[0] ^ 1]) + value[1:],
        lambda value: value[:-1],
        lambda value: value[:-9] + b"\x07" + value[-8:],
        lambda value: b"",
    ],
)
def test_a_changed_value_is_not_believed(tmp_path: Path, change) -> None:
    store(tmp_path).put(states(3))
    forgotten()
    changed(tmp_path / NAME, b"text 1", change)

    kept = store(tmp_path)

    assert kept.get(states(3)).keys() == {b"text 0", b"text 2"}
    kept.put(states(3))
    assert equal(kept.get(states(3)), states(3))


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size * 2 // 3 + 1000)


def scramble(file: Path) -> None:
    """Wrong offsets in every page of the tree: LMDB itself would crash."""
    data = bytearray(file.read_bytes())
    for at in range(2 * 4096, len(data), 4096):
        data[at + 16 : at + 64] = b"\xff" * 48
    file.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [truncate, scramble, lambda f: f.write_bytes(b""), lambda f: f.write_bytes(b"no" * 9000)],
    ids=["truncated", "scrambled", "empty", "foreign"],
)
def test_a_damaged_file_is_set_aside_with_one_line(tmp_path: Path, damage, caplog) -> None:
    store(tmp_path).put(states(300))
    forgotten()
    damage(tmp_path / NAME / "data.mdb")
    caplog.set_level(logging.WARNING)

    kept = store(tmp_path)
    assert not kept.get(states(300))
    kept.put(states(300))
    assert equal(kept.get(states(300)), states(300))

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= 1 and all("damaged" in line for line in lines)
    if lines:
        assert (tmp_path / f"{NAME}.damaged").is_dir()


def test_at_its_limit_it_stops_writing_and_says_so_once(tmp_path: Path, caplog) -> None:
    kept = store(tmp_path, disk=200 * 1024 / 2**30)
    kept.put(states(10))
    for first in range(10, 1210, 300):
        kept.put(states(300, first=first))

    assert [r.getMessage() for r in caplog.records] == [
        f"kept states: {tmp_path} has reached its limit of 0.000191 GiB; "
        "what does not fit into memory is computed again"
    ]
    every = states(1210)
    found = kept.get(every)
    assert equal(found, {key: every[key] for key in found}) and len(found) >= 10
    assert (tmp_path / NAME / "data.mdb").stat().st_size <= 200 * 1024


def test_a_full_disk_stops_no_run(tmp_path: Path) -> None:
    """A process may write no file beyond 256 KiB: the same as a full disk to who writes."""
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
kept = store(folder)
kept.put(states(10))
for first in range(10, 4000, 400):
    kept.put(states(400, first=first))
assert len(kept.get(states(4000))) >= 10
"""
    output = said(in_process(code, tmp_path))
    assert output.count("\n") == 1 and "kept states: cannot write" in output
    assert len(store(tmp_path).get(states(10))) == 10


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_is_no_folder_stops_no_run(tmp_path: Path, place: str, caplog) -> None:
    (tmp_path / "file").write_text("")
    kept = store(tmp_path / place)
    kept.put(states(2))
    assert not kept.get(states(2))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "kept states: cannot open" in line


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path: Path, caplog) -> None:
    tmp_path.chmod(0o500)
    kept = store(tmp_path / "trunk")
    kept.put(states(2))
    assert not kept.get(states(2))
    assert len(caplog.records) == 1


def test_the_longest_unused_make_room(tmp_path: Path) -> None:
    names = [f"{i}" * 32 for i in range(4)]
    for age, name in enumerate(names):
        store(tmp_path, name=name).put(states(50))
        os.utime(tmp_path / name, (1e9 + age, 1e9 + age))
    (tmp_path / "mine").mkdir()
    size = (tmp_path / names[0] / "data.mdb").stat().st_size
    forgotten()
    elsewhere = os.open(tmp_path / names[1] / "use", os.O_RDWR)
    fcntl.flock(elsewhere, fcntl.LOCK_SH)

    store(tmp_path, disk=4.5 * size / 2**30).put(states(10))
    os.close(elsewhere)

    left = {path.name for path in tmp_path.iterdir()}
    assert left == {names[1], names[3], NAME, "mine"}
