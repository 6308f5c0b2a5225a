"""Checkpoints: bit for bit, and whole or not at all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments import checkpoint


def state(step: int) -> tuple[dict, dict]:
    generator = torch.Generator().manual_seed(step)
    values = torch.randn(3, 4, generator=generator)
    tensors = {"values": values, "random": generator.get_state(), "step": torch.tensor(float(step))}
    return tensors, {"step": step, "score": 1 / (step + 3), "records": step * 2}


def same(loaded, expected) -> bool:
    tensors, meta = loaded
    return meta == expected[1] and all(
        torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype
        for name, value in expected[0].items()
    )


def test_nothing_to_load(tmp_path):
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "none") is None


def test_state_comes_back_bit_for_bit(tmp_path):
    shared = torch.randn(4, 4)
    tensors = {
        "a.b/c d": shared,
        "transposed": shared.T,
        "alias": shared,
        'quote " é \n ü': torch.tensor([float("nan"), -0.0, 1e-45]),
        "": torch.tensor(7),
        "__metadata__": torch.tensor([True, False]),
        "half": torch.randn(3).bfloat16(),
        "empty": torch.zeros(0, 3),
        "random": torch.get_rng_state(),
    }
    meta = {"step": 3, "float": 0.1 + 0.2, "text": "é", "nested": {"list": [1, None, True]}}
    checkpoint.save(tmp_path, tensors, meta)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded[1] == meta
    assert loaded[0].keys() == tensors.keys()
    for name, value in tensors.items():
        assert loaded[0][name].dtype == value.dtype
        assert (
            loaded[0][name].numpy(force=True).tobytes()
            == value.contiguous().numpy(force=True).tobytes()
            if value.dtype != torch.bfloat16
            else torch.equal(loaded[0][name], value)
        )


def test_adamw_goes_on_as_if_it_had_not_stopped(tmp_path):
    def training(steps, weight, optimizer):
        for step in range(steps):
            weight.grad = torch.full_like(weight, 0.1 * step + 1)
            optimizer.step()

    straight = torch.ones(3)
    optimizer = torch.optim.AdamW([straight], lr=0.1)
    training(2, straight, optimizer)
    moments = optimizer.state_dict()["state"][0]
    checkpoint.save(tmp_path, {"weight": straight, **moments}, {"step": 2})
    loaded, _ = checkpoint.load(tmp_path) or ({}, {})
    resumed = loaded.pop("weight")
    second = torch.optim.AdamW([resumed], lr=0.1)
    second.load_state_dict(optimizer.state_dict() | {"state": {0: loaded}})
    training(3, straight, optimizer)
    training(3, resumed, second)
    assert torch.equal(straight, resumed)


def test_the_last_two_are_kept(tmp_path):
    for step in (1, 2, 10, 1000001):
        checkpoint.save(tmp_path, *state(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000010", "step-1000001"]
    assert same(checkpoint.load(tmp_path), state(1000001))


@pytest.mark.parametrize("part", ["tensors.safetensors", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "empty"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, caplog, part, damage):
    checkpoint.save(tmp_path, *state(1))
    path = checkpoint.save(tmp_path, *state(2)) / part
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "flip":
        # The last digit of a number, or the last byte of a tensor: both still parse.
        spot = content.rindex(b"4") if part == "meta.json" else len(content) - 1
        path.write_bytes(content[:spot] + bytes([content[spot] ^ 1]) + content[spot + 1 :])
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
    assert same(checkpoint.load(tmp_path), state(1))
    assert "step-000002 is damaged" in caplog.text


def test_meta_of_another_shape_is_damage(tmp_path):
    path = checkpoint.save(tmp_path, *state(1))
    (path / "meta.json").write_text(json.dumps([1]))
    assert checkpoint.load(tmp_path) is None


def test_a_step_done_again_replaces_the_damaged_one_and_what_came_after(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, *state(step))
    (tmp_path / "step-000002" / "meta.json").unlink()
    checkpoint.save(tmp_path, *state(2))
    assert same(checkpoint.load(tmp_path), state(2))
    checkpoint.save(tmp_path, *state(1))  # resumed from before: step 2 is of an abandoned future
    assert same(checkpoint.load(tmp_path), state(1))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from experiments import checkpoint
from tests_state import state, same

root = Path(sys.argv[1])
EVENTS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree")
moment, again = 0, True
while again:
    folder = root / str(moment)
    for step in (1, 2, 3):
        checkpoint.save(folder, *state(step))
    left = [moment]
    pid = os.fork()
    if not pid:
        def hook(event, _):
            if event in EVENTS:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        checkpoint.save(folder, *state(4))
        os._exit(0)
    again = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
    loaded = checkpoint.load(folder)
    step = loaded[1]["step"]
    assert step in (3, 4) and same(loaded, state(step)), (moment, step)
    assert not list(folder.glob(".tmp-*"))
    checkpoint.save(folder, *state(4))
    assert same(checkpoint.load(folder), state(4))
    print(step)
    moment += 1
"""


def test_killed_at_any_moment_of_a_write_the_old_or_the_new_one_is_loaded(tmp_path):
    """The process kills itself before its 1st, 2nd, 3rd ... access to the file system."""
    source = Path(__file__).read_text(encoding="utf-8")
    helpers = source[source.index("def state") : source.index("def test_nothing")]
    (tmp_path / "tests_state.py").write_text(f"import torch\n{helpers}")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{KILLED}"
    command = [sys.executable, "-c", code, str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = done.stdout.split()
    assert steps == sorted(steps) and set(steps) == {"3", "4"} and len(steps) > 10
