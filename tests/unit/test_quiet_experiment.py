"""The experiment behind chapter 15's AdamW without noise: it goes through, and its training names its prediction."""

from __future__ import annotations

import numpy as np
import torch

from grokutils import records
from grokutils.experiments import quiet


def test_predicts_then_trains_what_names_its_prediction(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    for name, value in {"P": 5, "WIDTH": 24, "FRACTION": 0.7, "LR": 5e-3, "TAU_END": 3.0}.items():
        monkeypatch.setattr(quiet, name, value)
    paths = {what: tmp_path / f"{what}.nc" for what in ("predict", "train")}
    listed = [{"seed": 1, "perturbed": 0.0}, {"seed": 1, "perturbed": 1e-6}]
    quiet.main("predict", listed, paths)
    quiet.main("train", listed, paths)
    told, ran = (records.load(path) for path in paths.values())
    assert (told.memorized > 0).all()
    assert (ran.steps >= told.memorized).all()
    scores = quiet.scores(told, ran)
    assert scores.chained.all()
    assert not quiet.scores(told.assign(seconds=told.seconds + 1), ran).chained.any()


def test_v_at_memorization_is_adam_s_corrected_average(monkeypatch):
    for name, value in {"P": 5, "WIDTH": 24, "FRACTION": 0.7, "LR": 5e-3}.items():
        monkeypatch.setattr(quiet, name, value)
    step, theta, v = quiet.begun({"seed": 1, "perturbed": 0.0})
    again, optimizer = quiet.run({"seed": 1, "perturbed": 0.0}, step)
    assert np.array_equal(again.theta_end.values, theta.numpy())
    raw = torch.cat([part["exp_avg_sq"].flatten() for part in optimizer.state.values()])
    assert torch.equal(v, raw / (1 - quiet.BETA2**step))


def test_stored_records_hold_every_case_and_its_chain():
    told, ran = quiet.stored()
    assert told.sizes["run"] == ran.sizes["run"] == len(quiet.cases())
    for i, case in enumerate(quiet.cases()):
        assert {name: told[name].values[i].item() for name in told.coords} == case
    assert (told.when.values.max() < ran.when.values).all()
    assert quiet.scores(told, ran).chained.all()
