"""The record log: after a resume no record is doubled and none is lost."""

import pandas
import pytest

from experiments.errors import UserError
from experiments.metrics import MetricsLog, cell_name, read_metrics

RECORDS = [{"step": step, "loss": 1 / (step + 3), "label": "é"} for step in range(5)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for record in RECORDS:
            log.append(record)
    return path


def test_records_come_back_exactly(path):
    assert read_metrics(path) == RECORDS


def test_what_a_run_logs_is_read_by_pandas(tiny_run):
    records = pandas.read_json(tiny_run / "metrics.jsonl", lines=True)
    curves = pandas.read_parquet(tiny_run / "curves.parquet")
    assert records.groupby("learner")["step"].max().to_dict() == {"maml": 2, "protonet": 2}
    maml = curves.query("learner == 'maml' and split == 'query' and metric == 'accuracy'")
    assert list(maml["step"]) == [0, 1, 2]
    assert ((maml["low"] <= maml["mean"]) & (maml["mean"] <= maml["high"])).all()


def test_a_record_is_visible_as_soon_as_it_is_appended(path):
    with MetricsLog(path) as log:
        log.append({"step": 5})
        assert read_metrics(path)[-1] == {"step": 5}
        assert log.sync() == 6


@pytest.mark.parametrize("count", range(6))
def test_cutting_back_and_going_on_gives_the_uninterrupted_log(path, count):
    whole = path.read_bytes()
    with MetricsLog(path) as log:
        log.truncate_to(count)
        assert read_metrics(path) == RECORDS[:count]
        for record in RECORDS[count:]:
            log.append(record)
    assert path.read_bytes() == whole


def test_every_half_written_last_line_is_dropped(path):
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for size in range(last, len(whole)):
        path.write_bytes(whole[:size])
        assert read_metrics(path) == RECORDS[:4]
        with MetricsLog(path) as log:
            assert log.count == 4
            log.append(RECORDS[4])
        assert path.read_bytes() == whole


def test_fewer_records_than_the_checkpoint_counts_is_an_error(path):
    with MetricsLog(path) as log, pytest.raises(UserError, match=r"5 records .* counts 6"):
        log.truncate_to(6)


@pytest.mark.parametrize("damage", [b'{"step": ', b"[2, ", b"\x00\x00", b"\xff\xfe"])
def test_a_corrupt_line_is_named(path, damage):
    path.write_bytes(path.read_bytes().replace(b'{"step": 2', damage))
    with pytest.raises(UserError, match=r"metrics.jsonl, line 3: damaged, not a JSON object; rest"):
        read_metrics(path)
    # A run is not resumed with it, but with what comes before it.
    with MetricsLog(path) as log:
        with pytest.raises(UserError, match="line 3: damaged"):
            log.truncate_to(3)
        log.truncate_to(2)
    assert read_metrics(path) == RECORDS[:2]


def test_a_record_that_is_no_object_is_named(path):
    path.write_text('{"step": 0}\n5\n')
    with pytest.raises(UserError, match="line 2: damaged"):
        read_metrics(path)


def test_a_missing_log_is_empty(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_the_name_of_a_training_has_no_empty_parts():
    assert cell_name({"learner": "maml", "fold": "", "seed": 0}) == "maml/seed 0"
    assert cell_name({"loss": 1.0}) == ""
