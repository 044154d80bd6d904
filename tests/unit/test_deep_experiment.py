"""The experiment behind chapter 14: predictions, then the runs that name them; its networks and its isolated dynamics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grokutils import losses, mlp, models, records, tasks
from grokutils.experiments import deep

SMALL = {
    "family": "completion", "depth": 3, "p": 5, "width": 5, "activation": "identity", "fraction": 0.6, "scale": 3.0,
    "lr": 0.05, "w": 5e-3, "loss": "squared_error", "seed": 0, "isolate": False,
}  # fmt: skip


def test_predicts_then_trains_what_names_its_prediction(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(deep, "TAU_END", 0.5)
    paths = {what: tmp_path / f"{what}.nc" for what in ("predict", "train")}
    listed = [SMALL, {**SMALL, "seed": 1}]
    deep.main("predict", listed[:1], paths)
    first = records.load(paths["predict"])
    deep.main("predict", listed, paths)
    told = records.load(paths["predict"])
    assert float(told.when[0]) == float(first.when[0]), "made once"
    deep.main("train", listed, paths)
    ran = records.load(paths["train"])
    runs = deep.scores(told, ran)
    assert runs.chained.all()
    changed = told.assign(seconds=told.seconds + 1)
    assert not deep.scores(changed, ran).chained.any()


def test_stored_records_hold_every_case():
    told, ran = deep.stored()
    assert told.sizes["run"] == ran.sizes["run"] == len(deep.cases())
    for name, values in deep.cases()[0].items():
        assert told[name].values[0] == values
    assert deep.scores(told, ran).chained.all()


def test_completion_reads_the_product():
    model, task = deep.setting(SMALL)
    theta = model.init(0)
    product = torch.linalg.multi_dot(list(model.matrices(theta).values()))
    X = task.X_train
    assert torch.allclose(model(theta, X)[:, 0], product[X[:, 0], X[:, 1]])
    with pytest.raises(ValueError, match="X"):
        model.check(X.double())


def eliminated():
    task = tasks.modular(5, train_fraction=0.6)
    model = mlp([5, 6, 12, 5], "softplus")
    theta = model.init(0)
    return deep.LastLayer(model, task, 0.05), theta


def test_the_eliminated_layer_is_the_best_one():
    alone, theta = eliminated()
    head = theta[: alone.head]
    best = torch.cat([head, alone.readout(head).flatten()]).requires_grad_()
    task = alone.task
    regularized = (
        losses.squared_error.value(alone.model(best, task.X_train), task.Y_train) + 0.05 * best @ best
    )
    (slope,) = torch.autograd.grad(regularized, best)
    assert float(slope[alone.head :].abs().max()) < 1e-10
    velocity = alone.velocity(head, counted=False)  # the envelope theorem
    assert torch.allclose(slope[: alone.head], -0.1 * velocity, atol=1e-10)
    assert float(regularized.detach()) == pytest.approx(0.1 * float(alone.cost(head)), rel=1e-9)


def test_the_metric_counts_the_readouts_motion():
    alone, theta = eliminated()
    head = theta[: alone.head]
    D = torch.func.jacrev(lambda t: alone.readout(t).flatten())(head)
    G = torch.eye(alone.head, dtype=torch.float64) + D.mT @ D
    exact = torch.linalg.solve(G, alone.velocity(head, counted=False))
    ours = alone.velocity(head, counted=True)
    assert torch.allclose(ours, exact, rtol=1e-7, atol=1e-9)
    assert float(ours.norm()) < float(alone.velocity(head, counted=False).norm())


def test_circles_and_lists_have_their_measures():
    p, angle = 11, 2 * np.pi * np.arange(11)[:, None] / 11
    phases = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    rings = [np.pad(np.cos(k * angle + phases), ((0, 0), (8 * k - 8, 32 - 8 * k))) for k in (1, 2, 3, 4)]
    found = deep.representation(
        torch.from_numpy(sum(rings) + 1e-9 * np.random.default_rng(0).normal(size=(p, 32)))
    )
    assert found["orthogonality"] < 1e-6
    assert found["balance"] == pytest.approx(1, abs=1e-6)
    assert found["frequencies"] == pytest.approx(4, rel=1e-6)
    assert found["separation"] > 2
    assert isinstance(
        deep.setting({**SMALL, "family": "transformer", "width": 8, "activation": "gelu"})[0], models.Model
    )


def test_afterwards_the_isolated_dynamics_is_followed_more_finely(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(deep, "TAU_END", 0.5)
    case = {**deep.BASE, "p": 5, "width": 12, "fraction": 0.8, "w": 5e-3, "isolate": True, "seed": 3}
    paths = {"after": tmp_path / "after.nc"}
    deep.main("after", [case], paths)
    assert set(records.load(paths["after"]).data_vars) >= {"joint", "isolated", "isolated_metric"}


def test_stored_afterthoughts_are_of_the_stored_flows():
    told, _ = deep.stored()
    after = deep.stored_after()
    assert len(after) == len(deep.asked_after())
    stored = told.joint.values[told.isolate.values.astype(bool)]
    assert np.allclose(after.joint, stored, rtol=1e-3, equal_nan=True)
