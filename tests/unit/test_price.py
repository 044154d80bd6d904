"""The price routine against closed forms and its second route; the experiment's machinery at small size."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

from grokutils import records
from grokutils.experiments import price as experiment
from grokutils.experiments import tables
from grokutils.experiments.running import run
from grokutils.models import two_layer
from grokutils.price import (
    PAIR,
    accuracy,
    on_the_constraint,
    price,
    table,
    table_lower_bound,
    table_network,
    table_tensor,
)


def whole_table(p):
    pairs = torch.combinations(torch.arange(p), 2, with_replacement=True)
    eye = torch.eye(p, dtype=torch.float64)
    return eye[pairs[:, 0]] + eye[pairs[:, 1]], eye[pairs.sum(1) % p]


def test_one_pair_costs_what_its_unit_does():
    X = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    Y = torch.ones(1, 1, dtype=torch.float64)
    assert price(X, Y).value == pytest.approx(PAIR, rel=1e-5)
    assert on_the_constraint(X, Y, width=2) == pytest.approx(PAIR, rel=1e-6)


@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_homogeneous_of_degree_one_is_twice_the_nuclear_norm(activation):
    """With X = I and a linear network V = 2‖Y‖_*; ReLU agrees where Y is non-negative of rank one."""
    generator = torch.Generator().manual_seed(3)
    X = torch.eye(5, dtype=torch.float64)
    Y = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    if activation == "relu":
        Y = Y[:, :1] @ Y[:1]
    expected = 2 * float(torch.linalg.svdvals(Y).sum())
    assert price(X, Y, activation).value == pytest.approx(expected, rel=2e-4)


def test_two_routes_agree():
    X, Y = whole_table(5)
    for n in (3, 6):  # local minima differ by up to a percent, so the best of several starts
        found = price(X[:n], Y[:n], starts=6, iterations=2000).value
        assert found == pytest.approx(on_the_constraint(X[:n], Y[:n], width=8, starts=4), rel=1e-3)


def test_price_is_its_network_s():
    X, Y = whole_table(5)
    found = price(X[:8], Y[:8], starts=1)
    norm = float(found.E.square().sum() + found.W.square().sum())
    assert found.bound < found.value
    assert found.value == pytest.approx(norm, rel=5e-3)
    assert accuracy(found, X[:8], Y[:8]) == 1


@pytest.mark.parametrize("p", [5, 7, 13])
def test_table_network_computes_the_table_at_the_stated_price(p):
    X, Y = whole_table(p)
    E, W = table_network(p)
    assert float(((X @ E).square() @ W - Y).abs().max()) < 1e-12
    assert float(E.square().sum() + W.square().sum()) == pytest.approx(table(p), rel=1e-12)
    T = np.einsum("ah,bh,hc->abc", E.numpy(), E.numpy(), W.numpy())
    assert np.abs(T - table_tensor(p)).max() < 1e-12
    assert table_lower_bound(p) < table(p)


def test_table_price_is_found_from_random_starts():
    X, Y = whole_table(7)
    assert price(X, Y, starts=4, iterations=2000).value == pytest.approx(table(7), rel=1e-3)


def test_lower_bound_holds_for_a_cheaper_network_than_the_closed_form():
    """At p = 5 a network cheaper than the rings exists; the proved bound must stay below it."""
    X, Y = whole_table(5)
    found = price(X, Y, starts=4, iterations=2000).value
    assert table_lower_bound(5) < found < table(5)


def test_unfit_arguments():
    X, Y = whole_table(5)
    with pytest.raises(ValueError, match="lengths"):
        price(X, Y[:3])
    with pytest.raises(ValueError, match="starts = 0"):
        price(X, Y, starts=0)
    with pytest.raises(ValueError, match="p = 9"):
        table(9)
    with pytest.raises(ValueError, match="width = 1"):
        on_the_constraint(X, Y, width=1, starts=1)


@pytest.mark.parametrize("rule", experiment.TABLES)
def test_tables(rule):
    case = experiment.Case(5, "quadratic", rule, 0)
    X, Y, shuffled = experiment.table(case)
    unordered = experiment.TABLES[rule][1]
    assert len(X) == (15 if unordered else 20 if rule == "x/y" else 25)
    assert (X.sum(1) == 2).all()
    assert Y.sum(0).equal(shuffled.sum(0))
    assert not Y.equal(shuffled)
    pairs = [tuple(int(i) for i in row.nonzero().ravel()) for row in X]
    if rule == "x/y":
        assert all((y - 5) * int(c.argmax()) % 5 == x for (x, y), c in zip(pairs, Y, strict=True))
    if rule == "a − b":
        assert all((a - (b - 5)) % 5 == int(c.argmax()) for (a, b), c in zip(pairs, Y, strict=True))
    assert experiment.sizes(case, len(X))[-1] == len(X)


def test_descents_are_trained_on_the_first_pairs_of_their_orders():
    n, orders = 9, (20, 21)
    runs = experiment.descend("quadratic", 5, n, orders, tau_end=0.2)
    assert runs.sizes["run"] == len(orders)
    lam = float(runs.weight_decay[0]) * n * 5 / 2
    assert lam == pytest.approx(0.032)
    assert float(runs.tau[0, -1]) == pytest.approx(0.2, rel=0.01)
    for at, order in enumerate(orders):
        X, Y, _ = experiment.table(experiment.Case(5, "quadratic", "a + b", order))
        net, theta = two_layer(5, 2 * n, 5, "quadratic"), torch.from_numpy(runs.theta_end.values[at])
        loss = float((net(theta, X[:n]) - Y[:n]).square().mean())
        assert loss == pytest.approx(float(runs.train_loss[at, -1]))


def test_last_crossing_is_linear_between_sizes_and_the_last_one():
    n = np.array([10.0, 20.0, 30.0, 40.0])
    assert experiment.last_crossing(n, np.array([0.0, 1.0, 0.0, 1.0]), 0.5) == 35
    assert experiment.last_crossing(n, np.array([0.0, 0.25, 0.75, 1.0]), 0.5) == 25
    assert math.isnan(experiment.last_crossing(n, np.array([0.0, 1.0, 1.0, 0.0]), 0.5))
    assert experiment.last_crossing(n, np.ones(4), 0.5) == 10, "at most the smallest size"
    assert math.isnan(experiment.last_crossing(n, np.zeros(4), 0.5))


def test_thresholds_of_straight_curves():
    n = np.array([10, 20, 30, 40])
    true = {"labels": "true", "n": n, "value": [15, 24, 24, 24], "accuracy": [0, 0, 1, np.nan]}
    shuffled = {"labels": "shuffled", "n": n, "value": n, "accuracy": np.nan}
    flow = {"flow_accuracy": [0, 0.25, 0.75, np.nan], "p": 5, "pairs": 40}
    rows = pd.concat([pd.DataFrame(true | flow), pd.DataFrame(shuffled | flow)])
    found = experiment.thresholds(rows)
    assert found == pytest.approx({"crossing": 24, "ratio": 24, "cheapest": 25, "flow": 25, "list": 20})


def test_a_whole_table_is_priced_as_the_curves_price_it():
    (row,) = tables.measure(tables.Case(5, 0), iterations=200)
    X, Y, _ = experiment.table(experiment.Case(5, "quadratic", "a + b", 0))
    assert row["value"] == price(X, Y, "quadratic", starts=2, seed=0, iterations=200).value <= row["worst"]
    held = tables.stored()
    assert {(int(p), int(s)) for p, s in zip(held.p, held.seed, strict=True)} == {
        (case.p, case.seed) for case in tables.CASES
    }


def test_measure_nests_its_training_sets():
    rows = experiment.measure(experiment.Case(5, "quadratic", "a + b", 0), starts=1, iterations=50)
    true = [row for row in rows if row["labels"] == "true"]
    sizes = [row["n"] for row in true]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 15
    assert math.isnan(true[-1]["accuracy"])
    assert math.isnan(true[-1]["flow_accuracy"])
    assert all(0 <= row["flow_accuracy"] <= 1 for row in true[:-1])
    assert true[0]["value"] < true[-1]["value"] <= true[-1]["worst"]


@dataclass(frozen=True)
class Square:
    number: int


def test_run_goes_on_where_it_was_killed(tmp_path):
    done = []

    def measure(case):
        if case.number == 2 and len(done) == 2:
            raise KeyboardInterrupt
        done.append(case.number)
        return [{"square": case.number**2}, {"square": -(case.number**2)}]

    cases, path = [Square(n) for n in range(4)], tmp_path / "squares.nc"
    with pytest.raises(KeyboardInterrupt):
        run(cases, measure, path)
    assert records.load(path).square.values.tolist() == [0, 0, 1, -1]
    done.append("again")
    table = run(cases, measure, path)
    assert done == [0, 1, "again", 2, 3]
    assert table.square.values.tolist() == records.load(path).square.values.tolist()
    assert table.number.values.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert list(tmp_path.iterdir()) == [path]


def test_run_refuses_another_experiment_s_file(tmp_path):
    path = tmp_path / "squares.nc"
    run([Square(1)], lambda case: [{"square": 1}], path)
    with pytest.raises(ValueError, match="has no activation, p"):
        run([experiment.Case(5, "relu", "a + b", 0)], lambda case: [{}], path)


@dataclass(frozen=True)
class Text:
    text: str


def test_run_keeps_texts_that_are_longer_than_those_of_the_file_and_curves(tmp_path):
    path = tmp_path / "texts.nc"
    measure = lambda case: [{"curve": np.arange(3.0) + len(case.text)}]  # noqa: E731
    run([Text("ab")], measure, path)
    run([Text("ab"), Text("abcdef")], measure, path)
    table = records.load(path)
    assert table.text.values.tolist() == ["ab", "abcdef"]
    assert table.curve.dims == ("row", "point")
    assert table.curve.values[:, 0].tolist() == [2, 6]
