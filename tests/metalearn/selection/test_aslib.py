"""ASlib scenarios: what is read, what is written, and what is wrong with a file."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml

from metalearn.selection import arff
from metalearn.selection.aslib import read_scenario
from metalearn.selection.aslib_export import write_scenario
from metalearn.selection.problem import Problem

DESCRIPTION = """
scenario_id: TINY
performance_measures: [time, quality]
maximize: [false, true]
performance_type: [runtime, solution_quality]
algorithm_cutoff_time: 100
algorithm_cutoff_memory: ?
features_cutoff_time: '?'
feature_steps:
  basic:
    provides:
    - size
"""
RUNS = """% a comment
@RELATION runs_TINY
@ATTRIBUTE instance_id STRING
@attribute repetition NUMERIC
@ATTRIBUTE algorithm STRING
@ATTRIBUTE time REAL
@ATTRIBUTE quality NUMERIC
@ATTRIBUTE 'runstatus' {ok, timeout , memout, not_applicable, crash, other}

@DATA
'one, or 1',1,no,3,0.5,ok
'one, or 1',2,no,5,0.7,ok
'one, or 1',1,"b b",100,0,timeout
two,1,no,7,0.2,memout
two,2,no,7,0.4,ok
two,1,"b b",8,1e-1,OK
it's,1,no,?,0,crash
it's,2,no,2,0.6,ok
it's,1,"b b",9,0.9,ok
"""
FEATURES = """@RELATION features_TINY
@ATTRIBUTE instance_id STRING
@ATTRIBUTE repetition NUMERIC
@ATTRIBUTE size NUMERIC
@ATTRIBUTE "its kind" {red, 'dark blue'}
@ATTRIBUTE other NUMERIC
@DATA
'one, or 1', 1, 1, red, 5
'one, or 1', 2, 3, red, ?
two,1,?,'dark blue',7
it's,1,10,?,9
"""
STATUS = """@RELATION status
@ATTRIBUTE instance_id STRING
@ATTRIBUTE repetition NUMERIC
@ATTRIBUTE basic {ok, presolved}
@DATA
'one, or 1',1,ok
'one, or 1',2,ok
two,1,presolved
it's,1,ok
"""
COSTS = """@RELATION costs
@ATTRIBUTE instance_id STRING
@ATTRIBUTE repetition NUMERIC
@ATTRIBUTE basic NUMERIC
@ATTRIBUTE more NUMERIC
@DATA
'one, or 1',1,0.5,1
'one, or 1',2,1.5,1
two,1,?,2
it's,1,0,?
"""
FOLDS = """@RELATION cv
@ATTRIBUTE instance_id STRING
@ATTRIBUTE repetition NUMERIC
@ATTRIBUTE fold NUMERIC
@DATA
two,1,1
it's,1,2
'one, or 1',1,2
two,2,2
it's,2,1
'one, or 1',2,3
"""
FILES = {
    "description.txt": DESCRIPTION,
    "algorithm_runs.arff": RUNS,
    "feature_values.arff": FEATURES,
    "feature_runstatus.arff": STATUS,
    "feature_costs.arff": COSTS,
    "cv.arff": FOLDS,
}
NEEDED = ("description.txt", "algorithm_runs.arff", "feature_values.arff")


def write(folder: Path, **changed: str) -> Path:
    for name, text in FILES.items():
        (folder / name).write_text(changed.get(name.split(".")[0], text), encoding="utf-8")
    return folder


def test_everything_of_a_scenario_is_read(tmp_path):
    found = read_scenario(write(tmp_path))
    assert (found.name, found.cutoff, found.measure.name) == ("TINY", 100, "time")
    assert found.measure.runtime and not found.measure.maximize
    assert found.instances == ("one, or 1", "two", "it's") and found.algorithms == ("no", "b b")
    # What only one algorithm has a second run of is missing of the other
    nan = np.nan
    np.testing.assert_array_equal(found.performance[0], [[3, 1000], [1000, 8], [1000, 9]])
    np.testing.assert_array_equal(found.performance[1], [[5, nan], [7, nan], [2, nan]])
    np.testing.assert_array_equal(found.solved[0], [[True, False], [False, True], [False, True]])
    assert found.feature_names == ("size", "its kind=dark blue", "its kind=red", "other")
    np.testing.assert_array_equal(found.features, [[2, 0, 1, 5], [nan, 1, 0, 7], [10, nan, nan, 9]])
    assert found.presolved.tolist() == [False, True, False]
    assert found.feature_costs.tolist() == [2.0, 2.0, 0.0]
    assert found.folds is not None and found.folds.tolist() == [[1, 0, 1], [2, 1, 0]]
    assert found.others["quality"][0, 0, 0] == 0.5


def test_a_problem_is_minus_par10_with_missing_features_imputed(tmp_path):
    problem = read_scenario(write(tmp_path)).problem()
    np.testing.assert_array_equal(problem.mean, [[-4, -1000], [-503.5, -8], [-501, -9]])
    np.testing.assert_array_equal(problem.costs, -problem.mean)
    assert problem.sources == problem.tasks
    assert problem.feature_names[-2:] == ("missing:size", "missing:its kind=dark blue")
    np.testing.assert_array_equal(problem.features[1, :4], [6, 1, 0, 7])
    np.testing.assert_array_equal(problem.features[2], [10, 0.5, 0.5, 9, 0, 1])


def test_features_that_are_no_numbers_of_single_precision(tmp_path):
    """Infinite ones are missing, those beyond the range are at its end."""
    changed = FEATURES.replace("two,1,?,", "two,1,inf,").replace("s,1,10,", "s,1,-1e300,")
    problem = read_scenario(write(tmp_path, feature_values=changed)).problem()
    np.testing.assert_array_equal(problem.features[:, 0], [2, -5e37, -1e38])
    assert np.isfinite(problem.features.astype(np.float32)).all()


def test_another_measure_is_a_quality_to_be_maximized(tmp_path):
    found = read_scenario(write(tmp_path), "quality")
    np.testing.assert_allclose(found.problem().mean, [[0.6, 0], [0.3, 0.1], [0.3, 0.9]])
    assert (found.problem().costs == 0).all()
    flipped = DESCRIPTION.replace("[false, true]", "[false, false]")
    found = read_scenario(write(tmp_path, description=flipped), "quality")
    np.testing.assert_allclose(found.problem().mean, [[-0.6, 0], [-0.3, -0.1], [-0.3, -0.9]])


def test_the_optional_files_may_be_absent(tmp_path):
    write(tmp_path)
    for name in set(FILES) - set(NEEDED):
        (tmp_path / name).unlink()
    found = read_scenario(tmp_path)
    assert found.folds is None and not found.presolved.any() and not found.feature_costs.any()


def test_a_description_of_older_style_is_read(tmp_path):
    """One measure without a list, and the data of an example of the specification without @DATA."""
    old = "scenario_id: OLD\nperformance_measures: time\nmaximize: false\n"
    old += "performance_type: runtime\nalgorithm_cutoff_time: 100\nalgorithms_stochastic: ?\n"
    runs = RUNS.replace("@DATA\n", "")
    runs = runs.replace("instance_id", "INSTANCE_ID").replace("repetition", "REPETITION")
    features = FEATURES.replace("instance_id", "INSTANCE_ID").replace("repetition", "REPETITION")
    write(tmp_path, description=old, algorithm_runs=runs, feature_values=features)
    found = read_scenario(tmp_path)
    assert found.feature_names[0] == "size"
    assert found.name == "OLD" and found.performance.shape == (2, 3, 2) and not found.others


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_file_is_named(tmp_path, name):
    (write(tmp_path) / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing; a scenario needs it"):
        read_scenario(tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("algorithm_runs", "two,1,no,7,", "two,1,no,x,", r"line 14: time is 'x'; give a number"),
        ("algorithm_runs", "two,1,no,7,0.2,memout", "two,1,no", r"line 14: 3 values for 6 columns"),
        ("algorithm_runs", "two,1,no", "six,1,no", r"line 14: instance six is not in feature_val"),
        ("algorithm_runs", "two,2,no", "two,1,no", r"line 15: a second run of no on two; drop one"),
        ("algorithm_runs", "two,1,\"b b\",8,1e-1,OK\n", "", r"no run of b b on two; add it"),
        ("algorithm_runs", "two,2,no,7,0.4", "two,2,no,?,0.4", r"line 15: time of a run that end"),
        ("algorithm_runs", "'one, or 1',2", "'one, or 1,2", r"line 12: a quote is not closed"),
        ("algorithm_runs", "two,2,no", "two,2,?", r"line 15: algorithm is missing"),
        ("algorithm_runs", "@RELATION", "@RELATIVE", r"line 2: unknown keyword @relative"),
        ("algorithm_runs", "time REAL", "runtime REAL", r"no column time"),
        ("algorithm_runs", "algorithm STRING", "time STRING", r"two columns are called time"),
        ("algorithm_runs", "time REAL", "time", r"line 6: no name and type"),
        ("feature_values", "two,1,?", "two,1,many", r"line 10: size is 'many'; give a number, or"),
        ("cv", "two,2,2", "two,1,2", r"line 9: a second fold of two"),
        ("cv", "two,1,1", "two,1,0", r"line 6: fold 0; number them from 1"),
        ("cv", "two,2,2\n", "", r"no fold of two; give each instance one"),
        ("description", "algorithm_cutoff_time: 100", "", r"line 13: timeout, but there is no al"),
        ("description", "maximize: [false, true]", "maximize: [false]", r"have 2, 2 and 1 entries"),
        ("description", "[false, true]", "[perhaps, true]", r"maximize perhaps; give true or"),
        ("description", "[runtime, ", "[speed, ", r"performance_type speed; runtime or"),
        ("description", "maximize: [false", "maximize: [false: [", r"description.txt, line \d+: n"),
        ("description", DESCRIPTION, "hello", r"no `key: value` lines"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_with_file_and_line(tmp_path, file, old, new, message):
    text = next(text for name, text in FILES.items() if name.startswith(file))
    assert old in text
    write(tmp_path, **{file: text.replace(old, new, 1)})
    with pytest.raises(ValueError, match=message) as error:
        read_scenario(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_measure_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no measure speed, only time, quality"):
        read_scenario(write(tmp_path), "speed")


def problem(tries: bool) -> Problem:
    random = np.random.default_rng(1)
    utilities = random.normal(size=(3, 5, 2))
    utilities[:, 1, 0] = np.nan
    return Problem(
        tasks=("plain", "it's, 'so'", "with space", "back\\slash", "?"),
        sources=("s", "s", "no", "1", "1"),
        learners=("zeta r=4, dear", "alpha"),
        feature_names=("ways", "mean length, tokens"),
        features=random.normal(size=(5, 2)) * 1e-7,
        utilities=utilities,
        costs=random.uniform(size=(5, 2)),
        tries=random.uniform(size=(5, 2)) if tries else None,
    )


@pytest.mark.parametrize("tries", [True, False])
def test_a_problem_that_is_written_is_read_back_the_same(tmp_path, tries):
    made, folds = problem(tries), np.array([[0, 0, 1, 2, 2], [1, 1, 0, 0, 0]])
    write_scenario(made, tmp_path / "new", "MINE", folds)
    found = read_scenario(tmp_path / "new")
    again = found.problem()
    for field in fields(Problem):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(made, field.name))
    assert found.folds is not None and (found.folds == folds).all() and found.name == "MINE"
    write_scenario(made, tmp_path / "new", "MINE")
    assert read_scenario(tmp_path / "new").folds is None


def test_what_is_written_keeps_to_the_specification(tmp_path):
    write_scenario(problem(True), tmp_path, "MINE")
    described = yaml.safe_load((tmp_path / "description.txt").read_text())
    lists = [described[key] for key in ("performance_measures", "maximize", "performance_type")]
    assert [len(entry) for entry in lists] == [3, 3, 3] and lists[1] == [True, False, True]
    provided = [name for step in described["feature_steps"].values() for name in step["provides"]]
    values = arff.read(tmp_path / "feature_values.arff")
    assert values.names == ("instance_id", "repetition", *provided)
    status = arff.read(tmp_path / "feature_runstatus.arff")
    assert status.names[2:] == tuple(described["feature_steps"])
    runs = arff.read(tmp_path / "algorithm_runs.arff")
    assert runs.names[:3] == ("instance_id", "repetition", "algorithm")
    assert runs.names[-1] == "runstatus" and runs.names[3:-1] == tuple(lists[0])
    assert set(runs.texts("algorithm")) == set(described["metainfo_algorithms"])
    assert set(runs.texts("instance_id")) == set(values.texts("instance_id"))
    assert "not_applicable" in runs.texts("runstatus")


def test_names_that_cannot_be_told_apart_are_not_written(tmp_path):
    made = problem(False)
    for kind in ("tasks", "learners"):
        object.__setattr__(made, kind, ("same",) * len(getattr(made, kind)))
        with pytest.raises(ValueError, match=f"two {kind} have one name"):
            write_scenario(made, tmp_path, "MINE")
        made = problem(False)
    object.__setattr__(made, "learners", ("one\nline", "alpha"))
    with pytest.raises(ValueError, match="a line break in"):
        write_scenario(made, tmp_path, "MINE")


PUBLISHED = {
    "ASP-POTASSCO": (1294, 11, 400.179, 880.547),
    "CSP-2010": (2024, 2, 6344.251, 7201.556),
    "QBF-2011": (1368, 5, 8337.099, 15330.171),
    "SAT11-RAND": (600, 9, 9186.441, 19916.356),
    "SAT11-HAND": (296, 15, 13360.664, 25589.269),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_bounds_of_real_scenarios(data, name):
    found = read_scenario(data / "aslib" / name)
    problem = found.problem()
    tasks, learners, virtual, single = PUBLISHED[name]
    assert problem.utilities.shape == (1, tasks, learners)
    assert -problem.virtual_best().mean() == pytest.approx(virtual, abs=1e-3)
    assert -problem.mean[:, problem.single_best].mean() == pytest.approx(single, abs=1e-3)
    assert found.folds is not None and np.bincount(found.folds[0]).size == 10


def test_a_real_scenario_written_from_its_problem_is_the_same(data, tmp_path):
    made = read_scenario(data / "aslib" / "SAT11-HAND").problem()
    write_scenario(made, tmp_path, "COPY")
    again = read_scenario(tmp_path).problem()
    for field in fields(Problem):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(made, field.name))
