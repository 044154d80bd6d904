"""Projected steps against the formulas that they implement and against the slow flow; bad input; the experiment at small size."""

from functools import partial

import numpy as np
import pytest
import torch

from grokutils import (
    follow,
    from_tensors,
    linearize,
    minimize_norm,
    mlp,
    modular,
    records,
    training,
    two_layer,
)
from grokutils.errors import StoppedError
from grokutils.experiments import rivals, sooner
from grokutils.experiments.running import run
from grokutils.solves import projected_step

NET = two_layer(5, 32, 5, "gelu")
TASK = modular(5, train_fraction=0.7, seed=1)


def point():
    theta = NET.init(3)
    lin = linearize(NET, theta, TASK.X_train)
    return lin, theta, lin.jacobian(), (lin.outputs - TASK.Y_train).flatten()


@pytest.mark.parametrize("h", [0.0, 0.3, 1.0])
def test_a_step_is_the_pseudo_inverses(h):
    lin, theta, J, r = point()
    end, nu = projected_step(lin, TASK.Y_train, h)
    torch.testing.assert_close(end, (1 - h) * theta + torch.linalg.pinv(J) @ (h * (J @ theta) - r))
    torch.testing.assert_close(J @ (end - theta), -r)  # on the linearized zero-loss set
    torch.testing.assert_close(end, (1 - h) * theta + J.T @ nu.flatten())
    if h == 1:  # the smallest norm there
        assert (end - torch.linalg.pinv(J) @ (J @ end)).norm() < 1e-8


@pytest.mark.parametrize("s", [0.1, 1.0])
def test_a_step_is_implicit_eulers_on_the_slow_flow(s):
    lin, theta, J, r = point()
    lam, h = 0.2, s / (1 + s)
    end, _ = projected_step(lin, TASK.Y_train, h, epsilon=lam / h)
    after = r + J @ (end - theta)
    torch.testing.assert_close(end, theta + s * (-J.T @ after / lam - end))


def test_small_steps_follow_the_slow_flow():
    start = torch.from_numpy(
        minimize_norm(NET, TASK, seed=3, landing=12, damping=0.0, solves=12).theta_end.values
    )
    solved = minimize_norm(NET, TASK, theta0=start, landing=0, h=0.02, solves=15)
    path = follow(NET, start, TASK, lam=0, tau_end=float(solved.tau[-1]), tolerance=1e-3)
    assert float(solved.norm2[-1]) == pytest.approx(float(path.norm2[-1]), rel=5e-3)


def test_norm_falls_on_the_zero_loss_set_and_kinds_agree():
    ends = [minimize_norm(NET, TASK, seed=4, solves=12, kind=kind) for kind in ("structured", "matrix_free")]
    np.testing.assert_allclose(ends[0].norm2, ends[1].norm2, rtol=1e-4)
    run = ends[0]
    assert (np.diff(run.norm2[6:]) < 0).all()
    assert float(run.residual[-1]) < 0.05 * float(TASK.Y_train.norm())
    assert run.attrs["ended"] == "solves"
    assert run.attrs["products"] > 12
    assert run.tau[-1] == 9
    assert run.sizes["step"] == 13


def test_kinks_are_held():
    relu = two_layer(5, 32, 5, "relu")
    run = minimize_norm(relu, TASK, seed=1, solves=12)
    assert run.residual[-1] < 1e-3
    assert (np.diff(run.norm2[5:]) < 1e-6).all()


def test_it_ends_when_told():
    until = minimize_norm(NET, TASK, seed=4, until=0.0)
    assert (until.attrs["ended"], until.sizes["step"]) == ("until", 2)
    assert minimize_norm(NET, TASK, callback=lambda row, theta: True).attrs["ended"] == "callback"
    assert minimize_norm(NET, TASK, seconds=1e-9).attrs["ended"] == "seconds"
    deep = mlp([5, 24, 24, 5], "gelu")
    assert minimize_norm(deep, TASK, solves=2).sizes["step"] == 3


def test_what_was_reached_is_in_the_error():
    with pytest.raises(StoppedError) as caught:
        minimize_norm(NET, TASK, theta0=0 * NET.init(0), solves=2)  # K = 0
    assert caught.value.records.sizes["step"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "net"}, "model is a str"),
        ({"h": 1.0}, "h = 1.0: must be a finite number in (0, 1)"),
        ({"h": 0.0}, "h = 0.0"),
        ({"landing": -1}, "landing = -1"),
        ({"damping": -1.0}, "damping = -1.0"),
        ({"solves": 0}, "solves = 0: must be an integer of at least 1"),
        ({"until": 1.5}, "until = 1.5"),
        ({"seconds": 0}, "seconds = 0"),
        ({"kind": "sparse"}, "kind = 'sparse'"),
        ({"theta0": torch.zeros(2)}, "theta0 has 2 entries"),
        ({"model": two_layer(5, 2, 5, "gelu")}, "d ≥ nm"),
        ({"model": two_layer(7, 32, 7, "gelu")}, "does not fit"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, said):
    with pytest.raises(ValueError) as caught:
        minimize_norm(**{"model": NET, "task": TASK, **arguments})
    assert said in str(caught.value)


def test_an_accuracy_needs_classes():
    X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = from_tensors(X[:2], X[:2, :1], X[2:], X[2:, :1])
    with pytest.raises(ValueError, match="has no classes"):
        minimize_norm(two_layer(3, 8, 1, "gelu"), plain, until=0.9)
    for h, epsilon in ((1.5, 0.0), (0.5, -1.0)):
        with pytest.raises(ValueError, match="must be"):
            projected_step(point()[0], TASK.Y_train, h, epsilon)


# The experiment ------------------------------------------------------------------------------------------------------


def test_newton_schulz_brings_singular_values_near_one():
    M = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    U, _, V = torch.linalg.svd(M, full_matrices=False)
    made = rivals.orthogonalized(M)
    values = torch.linalg.svdvals(made)
    assert ((values > 0.6) & (values < 1.3)).all()
    assert ((made * (U @ V)).sum() / made.norm() / (U @ V).norm()) > 0.98
    torch.testing.assert_close(rivals.orthogonalized(M.mT), made.mT)


@pytest.mark.parametrize(
    ("method", "settings", "same"),
    [
        ("constant", {"lr": 1.0, "w": 1e-2}, {"lr": 1.0, "weight_decay": 1e-2}),
        (
            "momentum",
            {"lr": 1.0, "w": 1e-2, "beta": 0.8},
            {"lr": 1.0, "weight_decay": 1e-2, "momentum": 0.8},
        ),
        ("AdamW", {"lr": 1e-2, "w": 0.5}, {"lr": 1e-2, "weight_decay": 0.5, "optimizer": "adamw"}),
        (
            "Grokfast",
            {"lr": 0.5, "w": 1e-2, "alpha": 0.9, "amplify": 2.0},
            {"lr": 0.5, "weight_decay": 1e-2, "hooks": training.filter_gradient(0.9, 2.0)},
        ),
    ],
)
def test_rivals_are_what_their_names_say(method, settings, same):
    steps, theta = 30, NET.init(1)
    found = rivals.descend(NET, [TASK], theta[None], method, [settings], steps)
    run = training.train(NET, TASK, steps, theta0=theta, **same)
    share = float(run.train_loss[0, -1] / run.train_baseline[0])
    assert found["train_loss"][0] == pytest.approx(share, rel=1e-6)
    assert found["spent"] == steps + 1


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_muon_is_pytorchs():
    theta, steps, factory = NET.init(1), 5, partial(torch.optim.Muon, momentum=0.95)
    run = training.train(
        NET, TASK, steps, theta0=theta, lr=0.02, weight_decay=0.5,
        optimizer=lambda params, lr, weight_decay: factory(params, lr=lr, weight_decay=weight_decay),
    )  # fmt: skip
    found = rivals.descend(NET, [TASK], theta[None], "Muon", [{"lr": 0.02, "w": 0.5}], steps)
    share = float(run.train_loss[0, -1] / run.train_baseline[0])
    assert found["train_loss"][0] == pytest.approx(share, rel=0.02)  # PyTorch's works in bfloat16


def test_decay_that_ends_lets_the_training_loss_go_to_zero():
    settings = [{"beta": 0.8, "lr": 2.0, "w": 3e-3}]
    tasks = [modular(7, train_fraction=0.9, seed=0)]
    net = two_layer(7, 48, 7, "quadratic")
    found = rivals.descend(net, tasks, net.init(0)[None], "then none", settings, 400, (np.inf, 1e-3), False)
    first, small = found["loss"][0]
    if np.isfinite(first):
        assert small >= first
        assert found["train_loss"][0] <= 1e-3
    assert {*rivals.GRIDS} < {*rivals.RULES}
    assert {len(grid) for grid in rivals.GRIDS.values()} == {24}


def test_steps_from_rest_are_those_of_a_mode():
    q = 400.0
    beta = sooner.schedules.critical_momentum(q, sooner.schedules.AFTER)
    rate = 2 * sooner.schedules.AFTER * (1 + beta) / (q + 1)
    x, v, steps = 1.0, 0.0, 0
    while x > np.exp(-2.0):
        v = beta * v + x
        x, steps = x - rate * v, steps + 1
    assert sooner.steps_from_rest(2.0, q) == pytest.approx(steps, abs=2)
    with pytest.raises(ValueError, match="columns"):
        sooner._row(1, nothing=3)


def test_texts_of_later_cases_are_not_cut(tmp_path):
    cases = [
        sooner.Case("a", "b", "c"),
        sooner.Case("longer", "than the", "first"),
        sooner.Case("d", "e", "f"),
    ]
    for case in cases:
        table = run([case], lambda case: [{"setting": case.part}], tmp_path / "rows.nc")
    assert table.part.values.tolist() == ["a", "longer", "d"]
    stored = records.load(tmp_path / "rows.nc")
    assert stored.cell.values.tolist() == ["b", "than the", "e"]


def test_the_parts_of_the_experiment_make_rows(monkeypatch):
    cell = (two_layer(5, 24, 5, "gelu"), 5, 0.7)
    monkeypatch.setitem(sooner.CELLS, "tiny", cell)
    sooner.task.cache_clear()
    monkeypatch.setattr(sooner, "LIMIT", 40)
    monkeypatch.setattr(sooner, "TAU_TANH", 0.2)
    for part, method in (
        ("solves", "solves"),
        ("controls", "random table"),
        ("rivals", "rule"),
        ("rivals", "ramp"),
        ("equal", "then none"),
        ("equal", "critical"),
        ("ends", "solves"),
    ):
        rows = sooner.measure(sooner.Case(part, "tiny", method), few=1)
        assert rows
        assert all({*row} == {*sooner.COLUMNS, "setting"} for row in rows)
