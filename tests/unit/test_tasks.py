"""Tasks against plain Python: tables, encodings, splits, and what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokutils import tasks

PLAIN = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "callable, commutative": lambda a, b: a * a + a * b + b * b,
    "callable, not commutative": lambda a, b: a + 2 * b,
    "large powers": lambda a, b: (a + 2) ** (b + 2),
}
GIVEN = {name: name if name in tasks.OPERATIONS else function for name, function in PLAIN.items()}
moduli, seeds = st.integers(3, 14), st.integers(0, 2**31)
names = st.sampled_from(sorted(PLAIN))


def everything(task):
    return (
        torch.cat([task.X_train, task.X_test]),
        torch.cat([task.Y_train, task.Y_test]),
        torch.cat([task.pairs_train, task.pairs_test]),
    )


@given(p=moduli, name=names, seed=seeds, fraction=st.floats(0.2, 0.8))
def test_the_split_table_is_the_table(p, name, seed, fraction):
    task = tasks.modular(p, GIVEN[name], fraction, seed)
    table = {(a, b): PLAIN[name](a, b) % p for a in range(p) for b in range(p)}
    commutative = all(table[a, b] == table[b, a] for a, b in table)
    X, Y, pairs = everything(task)
    listed = [tuple(pair) for pair in pairs.tolist()]
    assert len(set(listed)) == len(listed)  # train and test share nothing
    assert set(listed) == {(a, b) for a, b in table if a <= b or not commutative}
    assert task.n_train == len(task.X_train) == len(task.pairs_train) == round(fraction * len(listed))
    for row, target, (a, b) in zip(X.tolist(), Y.tolist(), listed, strict=True):
        expected = [0.0] * (p if commutative else 2 * p)
        expected[a] += 1
        expected[b if commutative else p + b] += 1
        assert row == expected
        assert target == [float(c == table[a, b]) for c in range(p)]
    assert task.p == p


def test_eleven_gives_sixty_six():
    task = tasks.modular(11)
    assert len(everything(task)[0]) == 66
    assert task.n_train == 46
    assert task.X_train.dtype == torch.float64
    assert task.name == "add mod 11"
    assert tasks.modular(37).n_train == 492


@given(p=moduli, name=names, seed=seeds)
def test_a_seed_is_a_split(p, name, seed):
    one, again, other = (tasks.modular(p, GIVEN[name], seed=s) for s in (seed, seed, seed + 1))
    assert torch.equal(one.pairs_train, again.pairs_train)
    assert torch.equal(one.X_test, again.X_test)
    assert not torch.equal(
        torch.cat([one.pairs_train, one.pairs_test]), torch.cat([other.pairs_train, other.pairs_test])
    )


@given(p=moduli, seed=seeds)
def test_a_random_table_is_symmetric_and_has_no_structure_to_find(p, seed):
    task = tasks.modular(p, "random", seed=seed)
    assert len(everything(task)[0]) == p * (p + 1) // 2
    assert set(everything(task)[1].argmax(1).tolist()) <= set(range(p))


def test_random_tables_use_every_value_and_differ():
    tables = []
    for seed in range(2):
        task = tasks.modular(13, "random", seed=seed)
        _, Y, pairs = everything(task)
        tables.append({tuple(pair): c for pair, c in zip(pairs.tolist(), Y.argmax(1).tolist(), strict=True)})
    assert set(tables[0].values()) == set(range(13))
    agreeing = sum(tables[0][pair] == tables[1][pair] for pair in tables[0])
    assert agreeing < len(tables[0]) / 3


def test_dtype():
    assert tasks.modular(5, dtype=torch.float32).Y_test.dtype == torch.float32


@pytest.mark.parametrize("p", [0, 1, -3, "a", 2.5, 5.0, True, None, math.nan])
def test_bad_moduli(p):
    with pytest.raises(ValueError, match=r"p = .*integer of at least 2"):
        tasks.modular(p)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, math.nan, math.inf, "half", None, True])
def test_bad_fractions(fraction):
    with pytest.raises(ValueError, match=r"train_fraction = .*\(0, 1\)"):
        tasks.modular(5, train_fraction=fraction)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_fractions_that_empty_a_part(fraction):
    with pytest.raises(ValueError, match=rf"train_fraction = {fraction}: leaves (0|15) of 15"):
        tasks.modular(5, train_fraction=fraction)


@pytest.mark.parametrize("operation", ["plus", "", None, 3, []])
def test_unknown_operations(operation):
    with pytest.raises(ValueError, match=r"operation = .*'add', 'subtract', 'multiply', 'random'"):
        tasks.modular(5, operation)


def test_callables_must_give_integers():
    for bad in (lambda a, b: a / (b + 1), lambda a, b: "c", lambda a, b: None):
        with pytest.raises(ValueError, match=r"operation = .*integer"):
            tasks.modular(5, bad)


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match=r"seed = .*integer of at least 0"):
        tasks.modular(5, seed=seed)


@given(n=st.integers(1, 5), n_test=st.integers(1, 20), seed=seeds)
def test_the_toy_adds_up(n, n_test, seed):
    task = tasks.sum_toy(n, n_test, seed)
    assert task.X_train.tolist() == [[1.0] * n]
    assert task.Y_train.item() == n
    assert task.X_test.shape == (n_test, n)
    torch.testing.assert_close(task.Y_test, task.X_test.sum(1, keepdim=True))
    assert task.p is None
    assert torch.equal(task.X_test, tasks.sum_toy(n, n_test, seed).X_test)


def test_regression_takes_lists_and_arrays():
    task = tasks.regression([[1, 2], [3, 4]], [1, 2], torch.ones(1, 2), [[3]])
    assert task.Y_train.shape == (2, 1)
    assert task.X_train.dtype == torch.float64
    assert len(task.pairs_train) == 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([[1.0]], [1, 2], [[1]], [1]), "X_train has 1, Y_train has 2"),
        (([[1.0]], [1], [[1, 2]], [1]), "X_train has 1, X_test has 2"),
        (([[1.0]], [1], [[1]], [[1, 2]]), "Y_train has 1, Y_test has 2"),
        (([[math.nan]], [1], [[1]], [1]), "X_train holds NaN"),
        (([[1.0]], [math.inf], [[1]], [1]), "Y_train holds NaN or inf"),
        (([[[1.0]]], [1], [[1]], [1]), r"X_train has shape \(1, 1, 1\)"),
        ((torch.empty(0, 1), [], [[1]], [1]), "X_train is empty"),
    ],
)
def test_arrays_that_do_not_fit(arrays, message):
    with pytest.raises(ValueError, match=message):
        tasks.regression(*arrays)


def test_the_ends_of_sums_of_two_one_hots():
    task = tasks.modular(7)
    left, right = tasks.ends(task.X_train)
    pairs = torch.stack([left, right], 1)
    assert torch.equal(pairs, task.pairs_train)
    ordered = tasks.modular(5, "subtract")
    assert torch.equal(torch.stack(tasks.ends(ordered.X_test), 1) - torch.tensor([0, 5]), ordered.pairs_test)


@pytest.mark.parametrize("entry", [0.0, 0.5, 2.0, -1.0])
def test_inputs_that_are_not_two_one_hots_have_no_ends(entry):
    X = torch.eye(4)[[0, 1]] + torch.eye(4)[[2, 1]]
    assert tasks.ends(X) is not None
    X[0, 0] = entry
    assert tasks.ends(X) is None
