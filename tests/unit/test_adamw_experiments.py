"""The experiments behind chapter 15's AdamW without noise: they go through, and each training names its prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grokutils import flow, records, training
from grokutils.experiments import adamw, edge, quiet

SMALL = {"p": 5, "width": 24, "fraction": 0.7, "lr": 5e-3, "tau_end": 3.0}
ALONE = [{"seed": 1, "perturbed": 0.0}, {"seed": 1, "perturbed": 1e-6}]
CASES = {quiet: ALONE, edge: [{**edge.BASE, **SMALL, **case} for case in ALONE]}


@pytest.mark.parametrize("experiment", CASES, ids=["quiet", "edge"])
def test_predicts_then_trains_what_names_its_prediction(experiment, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(experiment, "BASE", {**experiment.BASE, **SMALL})
    paths = {what: tmp_path / f"{what}.nc" for what in ("predict", "train")}
    listed = CASES[experiment]
    experiment.main("predict", listed, paths)
    experiment.main("train", listed, paths)
    told, ran = (records.load(path) for path in paths.values())
    assert (told.memorized > 0).all()
    assert (ran.steps >= told.memorized).all()
    scores = experiment.scores(told, ran)
    assert scores.chained.all()
    assert not experiment.scores(told.assign(seconds=told.seconds + 1), ran).chained.any()


@pytest.mark.parametrize("base", [quiet.BASE, edge.BASE], ids=["cross_entropy", "squared_error"])
def test_v_at_memorization_is_adam_s_corrected_average(base):
    case = {**base, **SMALL, "seed": 1, "perturbed": 0.0}
    step, theta, v = adamw.begun(case)
    seen: dict = {}

    def keep(state, step) -> None:
        step()
        seen["optimizer"] = state.optimizer

    network, task = adamw.setting(case)
    again = training.train(
        network, task, step, theta0=network.init(1), loss=case["loss"], lr=case["lr"], weight_decay=case["w"], hooks=[keep],
        optimizer=lambda parameters, **given: torch.optim.AdamW(parameters, betas=(0.9, case["beta2"]), **given),
    )  # fmt: skip
    assert np.array_equal(again.isel(run=0).theta_end.values, theta.numpy())
    raw = torch.cat([part["exp_avg_sq"].flatten() for part in seen["optimizer"].state.values()])
    assert torch.equal(v, raw / (1 - case["beta2"] ** step))


def test_a_run_in_the_metric_of_the_concave_problem_agrees_with_it_to_the_full():
    case = {**edge.BASE, **SMALL}
    network, task = adamw.setting(case)
    theta = network.init(1)
    J = torch.func.jacrev(lambda t: network(t, task.X_train).flatten())(theta)
    limit = flow.edge_of_adam(case["lr"]) * len(J) / 2
    v = flow.edge_oscillation(J, torch.zeros(network.d).double(), torch.ones(network.d).double(), limit).fed(
        J
    )
    same = edge.compared(network, task, theta, v, case["lr"])
    assert same["agreement"] == pytest.approx(1, abs=1e-3)
    assert same["ratio"] == pytest.approx(1, abs=1e-3)
    assert same["edge"] == pytest.approx(1, abs=5e-3)
    assert same["near"] >= 1
    other = edge.compared(network, task, theta, v.flip(0), case["lr"])
    assert other["agreement"] < 0.9


@pytest.mark.parametrize("experiment", [quiet, edge], ids=["quiet", "edge"])
def test_stored_records_hold_every_case_and_its_chain(experiment):
    told, ran = experiment.stored()
    assert told.sizes["run"] == ran.sizes["run"] == len(experiment.cases())
    for i, case in enumerate(experiment.cases()):
        assert {name: told[name].values[i].item() for name in told.coords} == case
    assert (told.when.values.max() < ran.when.values).all()
    assert experiment.scores(told, ran).chained.all()
