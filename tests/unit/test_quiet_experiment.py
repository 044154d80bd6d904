"""The experiment behind chapter 15's AdamW without noise: it goes through, and its training names its prediction."""

from __future__ import annotations

import numpy as np
import torch

from grokutils import records, training
from grokutils.experiments import adamw, quiet

SMALL = {**quiet.BASE, "p": 5, "width": 24, "fraction": 0.7, "lr": 5e-3, "tau_end": 3.0}


def test_predicts_then_trains_what_names_its_prediction(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(quiet, "BASE", SMALL)
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


def test_v_at_memorization_is_adam_s_corrected_average():
    case = {**SMALL, "seed": 1, "perturbed": 0.0}
    step, theta, v = adamw.begun(case)
    seen: dict = {}

    def keep(state, step) -> None:
        step()
        seen["optimizer"] = state.optimizer

    network, task = adamw.setting(case)
    again = training.train(
        network, task, step, theta0=network.init(1), loss="cross_entropy", lr=5e-3, weight_decay=1.0, hooks=[keep],
        optimizer=torch.optim.AdamW,
    )  # fmt: skip
    assert np.array_equal(again.isel(run=0).theta_end.values, theta.numpy())
    raw = torch.cat([part["exp_avg_sq"].flatten() for part in seen["optimizer"].state.values()])
    assert torch.equal(v, raw / (1 - 0.999**step))


def test_stored_records_hold_every_case_and_its_chain():
    told, ran = quiet.stored()
    assert told.sizes["run"] == ran.sizes["run"] == len(quiet.cases())
    for i, case in enumerate(quiet.cases()):
        assert {name: told[name].values[i].item() for name in told.coords} == case
    assert (told.when.values.max() < ran.when.values).all()
    assert quiet.scores(told, ran).chained.all()
