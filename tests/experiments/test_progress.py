"""Progress: quiet where nobody watches, with the figures that matter."""

import io

from rich.console import Console

from experiments.progress import Progress


def lines(total: int, start: int = 0) -> list[str]:
    out = io.StringIO()
    with Progress(total, "maml", start=start, console=Console(file=out)) as progress:
        for step in range(start + 1, total + 1):
            figures = {"loss": 2.0 / step}
            if step == 1:
                figures["validation"] = 0.75
            progress.update(step, figures)
    return out.getvalue().splitlines()


def test_plain_lines_are_few_and_include_the_last_step():
    shown = lines(95)
    assert len(shown) <= 11
    assert shown[-1].startswith("maml 95/95")


def test_a_line_has_the_figures_the_pace_and_the_time_left():
    line = lines(20)[0]
    assert "loss 1.000" in line
    assert "validation 0.750" in line  # given at step 1, still shown at step 2
    assert "s/step" in line and "s left" in line


def test_a_resumed_training_shows_only_what_it_did():
    assert [line.split()[1] for line in lines(20, start=15)] == ["16/20", "18/20", "20/20"]


def test_a_terminal_gets_a_bar():
    out = io.StringIO()
    with Progress(3, "maml", console=Console(file=out, force_terminal=True, width=120)) as progress:
        progress.update(3, {"loss": 0.5})
    assert "3/3" in out.getvalue() and "loss 0.500" in out.getvalue()
