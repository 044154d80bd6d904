"""The experiment behind chapter 13: what is predicted is then trained, in order, and taken up again."""

from __future__ import annotations

import numpy as np
import torch

from grokutils import delay, records
from grokutils.experiments import delay as experiment


def test_predicts_then_trains_and_goes_on_where_it_stopped(tmp_path):
    torch.set_num_threads(1)
    paths = {what: tmp_path / f"{what}.nc" for what in experiment.PATHS}
    stored = {name: delay.stored(name) for name in ("predictions", "trainings")}
    quick = int(np.nanargmin(stored["trainings"].step))
    case = experiment.cases()[quick]
    listed = [case, {**case, "seed": 1}]
    experiment.main("predict", listed[:1], paths)
    first = records.load(paths["predict"])
    experiment.main("predict", listed, paths)
    told = records.load(paths["predict"])
    assert told.sizes["run"] == 2
    assert float(told.when[0]) == float(first.when[0]), "made once"
    experiment.main("train", listed, paths)
    ran = records.load(paths["train"])
    assert (told.when.values < ran.when.values).all()
    for made, name in ((told, "predictions"), (ran, "trainings")):
        assert set(made.data_vars) == set(stored[name].data_vars)
        assert set(made.coords) == set(stored[name].coords)
        assert np.isclose(made.step[0], stored[name].step[quick], rtol=1e-3)


def test_scores_are_of_the_runs_that_wait():
    stored = delay.stored("predictions"), delay.stored("trainings")
    runs, errors = experiment.scores(*stored), experiment.rivals(*stored)
    scored = runs[runs.scored & runs.plain]
    assert (scored.memorizes & scored.waits & ~scored.failed).all()
    assert np.allclose(scored.of_step, scored.predicted / scored.measured - 1)
    assert (
        scored.groks == (scored.measured >= records.GROKS * stored[0].memorized.values[scored.index])
    ).all()
    assert runs.known.sum() == len(experiment.KNOWN)
    fitted = errors.loc[scored.index, ["constant", "calibrated"]].dropna()
    squares = (fitted**2).groupby(
        [scored[n].loc[fitted.index] for n in ("activation", "p", "width", "fraction", "scale")]
    )
    assert (squares.sum().calibrated <= squares.sum().constant + 1e-9).all(), "one more number to fit"
    assert (errors.norm.dropna() <= 0).all(), "a lower bound, also where λ is not small"
