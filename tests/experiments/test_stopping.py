"""Signals are held back where work can be saved, and end everything else with one line."""

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from safetensors import SafetensorError

from experiments import outcome, stopping
from experiments.cli import main
from experiments.endings import ended
from experiments.errors import Diverged, LostRank, Stopped, UserError
from meta_models.adapters import Adapter


def raises(error: BaseException):
    def command() -> int:
        raise error

    return command


def full(inner: Exception) -> Exception:
    error = RuntimeError("it did not work")
    error.__cause__ = inner
    return error


SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/metrics.jsonl")
RUST = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("error", "words", "status", "said"),
    [
        (UserError("no such thing"), ["train"], 2, "no such thing"),
        (Diverged("loss nan"), ["train"], 2, "loss nan"),
        (
            Stopped("SIGTERM", "runs/a"),
            *(["train", "a"], 75),
            "stopped by SIGTERM, saved in runs/a; resume with: metalearn train a --resume runs/a",
        ),
        (
            Stopped("SIGINT", "here"),
            *(["train", "a", "--run-dir", "here"], 75),
            "stopped by SIGINT, saved in here; "
            "resume with: metalearn train a --run-dir here --resume",
        ),
        (
            Stopped("SIGTERM"),
            *(["evaluate", "a"], 75),
            "stopped by SIGTERM; resume with: metalearn evaluate a --resume",
        ),
        (LostRank("rank 1 was lost"), ["report", "a"], 3, "rank 1 was lost"),
        (
            SPACE,
            *(["train", "a", "--resume"], 4),
            "No space left on device: runs/a/metrics.jsonl; free some space and resume with: "
            "metalearn train a --resume",
        ),
        (full(SPACE), ["adapt"], 4, "No space left on device: runs/a/metrics.jsonl; free some sp"),
        (RUST, ["adapt"], 4, "No space left on device; free some space"),
        (OSError(errno.EFBIG, "File too large", "a"), ["adapt"], 4, "File too large: a; free som"),
        (KeyboardInterrupt(), ["adapt"], 130, "interrupted"),
    ],
)
def test_every_end_is_one_line_and_a_status(capsys, error, words, status, said):
    assert ended(words, raises(error)) == status
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"metalearn: {said}")


def test_a_defect_is_no_mistake_of_the_user():
    for error in (ValueError("?"), PermissionError(errno.EACCES, "Permission denied")):
        with pytest.raises(type(error)):
            ended(["train"], raises(error))


def test_the_help_tells_the_statuses(capsys):
    assert main([]) == 0
    assert "  75   stopped by SIGTERM or SIGINT, and saved" in capsys.readouterr().out


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_the_first_signal_is_held_back(number, capfd):
    before = [signal.getsignal(each) for each in stopping.SIGNALS]
    with stopping.deferred():
        stopping.check()
        assert not stopping.asked()
        with stopping.deferred():  # of a run within something that can be stopped itself
            signal.raise_signal(number)
        assert stopping.asked()
        # The next one is the system's to answer: the process ends at once.
        assert {signal.getsignal(each) for each in stopping.SIGNALS} == {signal.SIG_DFL}
        with pytest.raises(Stopped, match=f"^stopped by {number.name}$"):
            stopping.check()
    assert [signal.getsignal(each) for each in stopping.SIGNALS] == before
    assert not stopping.asked()
    assert capfd.readouterr().err == (
        f"\nmetalearn: {number.name}: stops at its next boundary; a second signal ends it at once\n"
    )


def test_processes_of_torchrun_survive_the_sigterm_that_follows_a_sigint(monkeypatch, capfd):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with stopping.deferred():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        with pytest.raises(Stopped, match="stopped by SIGINT"):
            stopping.check()
    assert capfd.readouterr().err == ""  # they would all say it


def test_a_thread_leaves_signals_alone():
    before = [signal.getsignal(each) for each in stopping.SIGNALS]

    @stopping.deferred()
    def handlers() -> list:
        return [signal.getsignal(each) for each in stopping.SIGNALS]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(handlers).result() == before


def test_a_second_signal_ends_the_process_at_once():
    code = (
        "import os, signal, sys\nfrom experiments.stopping import deferred\n"
        "with deferred():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('heard', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('not reached')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == "heard\n"


def test_what_saves_nothing_clears_away_what_is_half_made(tmp_path, capsys):
    def command() -> int:
        half = tmp_path / "half"
        half.mkdir()
        try:
            signal.raise_signal(signal.SIGTERM)
        except stopping.Terminated:
            raise KeyboardInterrupt from None  # as Ray does
        finally:
            half.rmdir()
        return 0

    assert ended(["adapt"], command) == 143
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err == "\nmetalearn: terminated\n"


def test_evaluate_stops_between_two_learners(tiny_run, tmp_path, monkeypatch, capfd):
    written = []
    write = outcome.write_part

    def then_stop(path, *arguments):
        write(path, *arguments)
        written.append(path)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(outcome, "write_part", then_stop)
    words = ["evaluate", str(tiny_run), "prototypes", "--run-dir", str(tmp_path / "e")]
    assert main(words) == 75
    assert len(written) == 1 and written[0].exists()
    assert not (tmp_path / "e" / "result.json").exists()
    again = f"metalearn: stopped by SIGTERM; resume with: metalearn {' '.join(words)} --resume"
    assert capfd.readouterr().err.splitlines()[-1] == again


def test_adapt_that_is_terminated_leaves_nothing(tiny_run, tmp_path, monkeypatch, capfd):
    support = tmp_path / "few.jsonl"
    support.write_text("".join(f'{{"text": "{t}", "label": "{t[0]}"}}\n' for t in ("ab", "bc")))
    export = Adapter.export

    def then_stop(*arguments):
        export(*arguments)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Adapter, "export", then_stop)
    words = ["--support", str(support), "--output", str(tmp_path / "out" / "made")]
    assert main(["adapt", str(tiny_run), "--learner", "maml", *words]) == 143
    assert not list((tmp_path / "out").iterdir())
    assert capfd.readouterr().err.splitlines()[-1] == "metalearn: terminated"
