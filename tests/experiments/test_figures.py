"""Figures: every learner is on them, and they are images worth opening."""

import math

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from experiments.figures import PALETTE, adaptation_curves, scores, training_curves


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    save = Figure.savefig

    def spy(self, *args, **options):
        figures.append(self)
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", spy)
    return figures


def test_each_learner_is_in_the_legend_the_best_first(made_up, tmp_path, drawn):
    path = adaptation_curves(made_up.curves((1, 5)), tmp_path / "f" / "curves.png", title="Made up")
    assert imread(path).shape[1] > 1000
    axes = drawn[0].axes
    assert [panel.get_title(loc="left") for panel in axes] == ["1-shot", "", "5-shot", ""]
    names = [text.get_text().split()[0] for text in axes[1].get_legend().get_texts()]
    assert names[0] == "maml" and names[-1] == "majority" and set(names) == made_up.learners
    assert axes[0].get_ylim()[1] <= 101


def test_where_there_is_only_a_loss_it_has_the_figure_alone(made_up, tmp_path, drawn):
    curves = [row for row in made_up.curves((1, 5)) if row["metric"] == "loss"]
    adaptation_curves(curves, tmp_path / "curves.png", title="Made up")
    axes = drawn[0].axes
    assert [panel.get_ylabel() for panel in axes] == ["query loss"] * 2
    names = [text.get_text().split()[0] for text in axes[0].get_legend().get_texts()]
    assert names[0] == "maml" and names[-1] == "majority" and set(names) == made_up.learners


def test_a_learner_far_off_does_not_squeeze_the_others(made_up, tmp_path, drawn):
    adaptation_curves(made_up.curves(), tmp_path / "curves.png", title="Made up")
    axes = drawn[0].axes
    assert axes[0].get_ylim()[0] > 70
    assert "majority  20.0 (off scale)" in [
        text.get_text() for text in axes[1].get_legend().get_texts()
    ]


def test_a_curve_has_a_point_a_step_and_a_learner_without_steps_is_level(made_up, tmp_path, drawn):
    adaptation_curves(made_up.curves(), tmp_path / "curves.png", title="Made up")
    lines = [line for line in drawn[0].axes[0].get_lines() if len(line.get_xdata()) > 1]
    assert [len(line.get_xdata()) for line in lines] == [2, 2, 6, 6, 6]
    assert all(line.get_ydata()[0] == line.get_ydata()[1] for line in lines[:2])
    assert lines[-1].get_ydata()[0] == pytest.approx(79)


def test_the_support_set_is_drawn_when_asked_for(made_up, tmp_path, drawn):
    for support in (False, True):
        adaptation_curves(
            made_up.curves(), tmp_path / "curves.png", title="Made up", support=support
        )
    dashed = [
        sum(line.get_linestyle() == "--" for line in figure.axes[0].get_lines()) for figure in drawn
    ]
    assert dashed == [0, 3]


def test_values_that_are_not_numbers_are_left_out(made_up, tmp_path):
    rows = [
        row | {"mean": math.nan} if row["metric"] == "loss" else row
        for row in made_up.curves()
        if row["learner"] == "prototypes"
    ]
    assert adaptation_curves(rows, tmp_path / "curves.png", title="Loss diverged").exists()
    assert adaptation_curves([], tmp_path / "none.png", title="Nothing yet").exists()


def test_a_training_is_a_line(made_up, tmp_path, drawn):
    training_curves(made_up.metrics(), tmp_path / "training.png")
    left, right = drawn[0].axes
    assert [len(line.get_xdata()) for line in left.get_lines()] == [61] * 4
    assert [len(line.get_xdata()) for line in right.get_lines()] == [4] * 4
    labels = [text.get_text() for text in right.get_legend().get_texts()]
    assert labels == ["maml/01/seed 0", "maml/02/seed 0", "reptile/01/seed 0", "reptile/02/seed 0"]
    training_curves([], tmp_path / "none.png")


def test_a_validation_score_that_is_minus_a_loss_is_no_percentage(tmp_path, drawn):
    scores = {"learner": "maml", "fold": "", "shots": 5, "seed": 0, "loss": 1.0}
    records = [scores | {"step": step, "validation": -1 / step} for step in (1, 2)]
    training_curves(records, tmp_path / "training.png")
    right = drawn[0].axes[1]
    assert list(right.get_lines()[0].get_ydata()) == [-1.0, -0.5]
    assert right.get_ylabel() == "minus validation loss"


def test_of_more_learners_than_colours_the_best_are_drawn(made_up, tmp_path, drawn):
    rows = made_up.curves()
    maml = [row for row in rows if row["learner"] == "maml"]
    near = [r | {"learner": f"m{i}", "mean": r["mean"] - i / 1000} for i in range(9) for r in maml]

    adaptation_curves(rows + near, tmp_path / "curves.png", title="Made up")

    names = {t.get_text().split()[0] for t in drawn[0].axes[1].get_legend().get_texts()}
    assert len(names) == len(PALETTE)
    assert names == {"maml", *(f"m{i}" for i in range(7))}
    assert f"The 8 best of {len(made_up.learners) + 9}" in drawn[0].texts[-1].get_text()


def test_scores_show_every_learner_the_best_on_top_beside_its_cost(made_up, tmp_path, drawn):
    path = scores(made_up.result((1, 5))["rows"], tmp_path / "scores.png", title="Made up")

    assert imread(path).shape[1] > 1000
    one, five, cost = drawn[0].axes
    names = [text.get_text() for text in one.get_yticklabels()]
    assert names[-1] == "maml" and names[0] == "majority" and set(names) == made_up.learners
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == ["1-shot", "5-shot", "cost"]
    # Guessing is so far off that it is a number at the edge.
    assert len(five.get_lines()) == len(names) - 1
    assert [text.get_text() for text in five.texts] == ["20.0"]
    assert len(cost.get_lines()) == 2 * len(names)
    assert cost.get_xscale() == "log"


def test_scores_of_numbers_are_losses_the_smallest_on_top(tmp_path, drawn):
    rows = [
        {
            "learner": name,
            "shots": 10,
            "loss": {"mean": loss, "low": loss - 0.1, "high": loss + 0.1},
            "adapt_seconds_per_task": 0.01,
        }
        for name, loss in (("finetune", 3.0), ("maml", 0.5), ("cavia", 0.4))
    ]

    scores(rows, tmp_path / "scores.png", title="Made up")

    assert [text.get_text() for text in drawn[0].axes[0].get_yticklabels()][-1] == "cavia"
    assert drawn[0].axes[0].get_xlabel() == "query loss"
