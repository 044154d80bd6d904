"""The experiment behind chapter 13: what is predicted is then trained, in order, and taken up again."""

from __future__ import annotations

import numpy as np
import torch

from grokutils import delay, records
from grokutils.experiments import delay as experiment


def test_predicts_then_trains_and_goes_on_where_it_stopped(tmp_path):
    torch.set_num_threads(1)
    paths = {what: tmp_path / f"{what}.nc" for what in experiment.PATHS}
    small = {
        **experiment.BASE,
        **experiment.PLAIN,
        "p": 5,
        "width": 40,
        "lr": 0.5,
        "w": 2e-3,
        "activation": "quadratic",
    }
    listed = [small, {**small, "seed": 1}]
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
        stored = delay.stored(name)
        assert set(made.data_vars) == set(stored.data_vars)
        assert set(made.coords) == set(stored.coords)
    both = np.isfinite(told.step.values) & np.isfinite(ran.step.values)
    assert both.any(), "else nothing is tested"
    assert np.allclose(told.step.values[both], ran.step.values[both], rtol=0.02, atol=20)
