"""TensorBoard: event files that are read back, each record once."""

import matplotlib.figure
import pytest

from experiments.config import Experiment
from experiments.errors import UserError
from experiments.metrics import MetricsLog
from experiments.sinks import Findings, open_sinks
from experiments.tensorboard import Board

reading = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="the extra tensorboard is not installed",
)
EXPERIMENT = Experiment(name="trial").override(
    {"tracking.mode": "disabled", "tracking.tensorboard": True}
)


def record(step: int, learner: str = "maml") -> dict:
    cell = {"learner": learner, "shots": 1, "fold": "", "seed": 0, "trial": 0}
    return cell | {"step": step, "loss": 1 / step, "ended": False, "note": "text"}


def scalars(folder, tag: str) -> list[tuple[int, float]]:
    events = reading.EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_records_are_scalars_over_the_meta_steps_of_their_training(tmp_path):
    sinks = open_sinks(EXPERIMENT, tmp_path)
    for index, (step, learner) in enumerate([(1, "maml"), (2, "maml"), (1, "anil"), (2, "anil")]):
        sinks.log(record(step, learner), index)
    sinks.finish()
    for learner in ("maml", "anil"):
        place = tmp_path / "tensorboard" / learner / "1-shot" / "seed 0" / "trial 0"
        assert scalars(place, "loss") == [(1, 1.0), (2, 0.5)]
        assert reading.EventAccumulator(str(place)).Reload().Tags()["scalars"] == ["loss"]


def test_curves_scores_and_figures_are_there(tmp_path, made_up):
    figure = tmp_path / "scores.png"
    matplotlib.figure.Figure(figsize=(2, 1), dpi=50).savefig(figure)
    result = made_up.result((1, 5))
    sinks = open_sinks(EXPERIMENT, tmp_path)
    sinks.conclude(Findings(result["curves"], result["rows"], [figure]))
    sinks.finish()
    place = tmp_path / "tensorboard"
    for tag, bound in (("query/accuracy", "mean"), ("query/accuracy/low", "low")):
        expected = [
            (row["step"], pytest.approx(row[bound]))
            for row in result["curves"]
            if (row["learner"], row["shots"], row["split"], row["metric"])
            == ("maml", 5, "query", "accuracy")
        ]
        assert scalars(place / "test" / "maml" / "5-shot", tag) == expected
        assert len(expected) == 6
    assert scalars(place, "test/maml/1-shot/accuracy") == [(0, pytest.approx(0.85))]
    events = reading.EventAccumulator(str(place)).Reload()
    (image,) = events.Images("figures/scores")
    assert (image.width, image.height) == (100, 50)
    (text,) = events.Tensors("result/text_summary")
    assert b"85.0 \xc2\xb1 1.0" in text.tensor_proto.string_val[0]


def test_a_resumed_run_has_every_record_once(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        first = open_sinks(EXPERIMENT, tmp_path)
        for step in range(1, 6):
            log.append(record(step))
            first.log(record(step), step - 1)
        first.finish()
        log.truncate_to(3)  # the checkpoint was older than the last records
        again = open_sinks(EXPERIMENT, tmp_path, resume=True)
        for step in range(4, 8):
            log.append(record(step))
            again.log(record(step), step - 1)
        again.finish()
    place = tmp_path / "tensorboard" / "maml" / "1-shot" / "seed 0" / "trial 0"
    assert [step for step, _ in scalars(place, "loss")] == list(range(1, 8))


def test_it_is_written_only_where_it_is_asked_for(tmp_path):
    sinks = open_sinks(EXPERIMENT.override({"tracking.tensorboard": False}), tmp_path)
    sinks.log(record(1), 0)
    sinks.conclude(Findings([]))
    sinks.finish()
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'metalearn\[tensorboard\]'"):
        Board(tmp_path)
    assert not list(tmp_path.iterdir())
