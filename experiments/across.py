"""Learners over several families: ranks, whose unit is the family, and paired differences.

Ranks and their critical difference (`metalearn.ranking`) ask who would come before whom on another
family, and take each of these as one observation.  The paired bootstrap draws families first and
tasks within them (`metalearn.statistics`): its interval is of the mean difference over families.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.config import Experiment
from experiments.groups import Finals, Groups, by_fold, first, pairs
from metalearn.ranking import rank_learners
from metalearn.statistics import bootstrap, paired


def across(
    found: Mapping[str, Finals], experiment: Experiment, metric: str
) -> list[dict[str, Any]]:
    """Compare learners over families, for each number of shots.

    Args:
        found: Final scores by family.
        experiment: Says the reference, the numbers of shots and of resamples.
        metric: "accuracy", or "loss", of which less is better.

    Returns:
        Entries of `result.json`: shots, metric, families, `tasks` (of each family: those that every
        learner has met), Friedman's `statistic` and `p`, `critical_difference`, and by learner
        `rank` (mean over families), the score and the `difference` to the reference as intervals.
        Empty where there are not two families and two learners.
    """
    resamples = experiment.evaluation.resamples
    entries = []
    for shots in experiment.episodes.shots:
        finals = [found[family][shots] for family in found]
        learners = [name for name in experiment.learners if all(name in one for one in finals)]
        if len(finals) < 2 or len(learners) < 2:
            continue
        tasks = min(len(s) for one in finals for groups in one.values() for s in groups.values())
        same = [{name: first(one[name], tasks) for name in learners} for one in finals]
        means = [[np.mean(list(one[name].values())) for name in learners] for one in same]
        ranking = rank_learners(np.array(means) * (-1 if metric == "loss" else 1))
        reference = experiment.evaluation.reference or experiment.learners[0]
        entry = ranking.entry(learners)
        for row in entry["learners"]:
            name = row["learner"]
            ours = [_group(one[name]) for one in same]
            row[metric] = bootstrap(ours, resamples=resamples).as_dict()
            if reference in learners and name != reference:
                sides = [pairs(one[name], one[reference]) for one in same]
                left, right = ([_group(side[part]) for side in sides] for part in (0, 1))
                row["difference"] = paired(left, right, resamples=resamples).as_dict()
        place = {"shots": shots, "metric": metric, "families": list(found), "tasks": tasks}
        entries.append(place | {"reference": reference} | entry)
    return entries


def _group(groups: Groups) -> np.ndarray:
    """`[trainings, episodes]` on one family, which all trainings share."""
    (scores,) = by_fold(groups)
    return scores
