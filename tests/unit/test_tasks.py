"""Tasks against plain Python: tables, encodings, splits, and what is refused."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokutils import tasks

PLAIN = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "x^2+y^2": lambda a, b: a**2 + b**2,
    "x^2+xy+y^2": lambda a, b: a**2 + a * b + b**2,
    "x^2+xy+y^2+x": lambda a, b: a**2 + a * b + b**2 + a,
    "x^3+xy": lambda a, b: a**3 + a * b,
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
    with pytest.raises(
        ValueError, match=r"operation = .*'add', 'subtract', 'multiply', 'divide', .*'random'"
    ):
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


def samples(task):
    """What each pair gives, and the pairs."""
    _, Y, pairs = everything(task)
    return {tuple(pair): c for pair, c in zip(pairs.tolist(), Y.argmax(1).tolist(), strict=True)}


@pytest.mark.parametrize("p", [2, 7, 11, 12])
def test_division_is_undone_by_multiplication_and_leaves_out_what_has_no_inverse(p):
    named = samples(tasks.modular(p, "divide"))
    assert set(named) == {(a, b) for a in range(p) for b in range(p) if math.gcd(b, p) == 1}
    assert all(c * b % p == a for (a, b), c in named.items())
    assert named == samples(tasks.modular(p, lambda a, b: a * pow(b, -1, p)))
    assert tasks.modular(p, "divide").name == f"divide mod {p}"


def test_a_callable_leaves_pairs_out_and_may_give_any_kind_of_integer():
    found = samples(tasks.modular(7, lambda a, b: None if a == 3 else np.int64(a - b)))
    assert found == {(a, b): (a - b) % 7 for a in range(7) for b in range(7) if a != 3}
    assert samples(tasks.modular(np.int64(5), lambda a, b: torch.tensor(a + b))) == samples(tasks.modular(5))
    halves = samples(tasks.modular(5, lambda a, b: a // b))
    assert set(halves) == {(a, b) for a in range(5) for b in range(1, 5)}
    with pytest.raises(ValueError, match=r"operation = .*gives no integer for any pair \(no\)"):
        tasks.modular(5, lambda a, b: (_ for _ in ()).throw(ValueError("no")))


@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_ordered_pairs_and_representations(operation):
    ordered = tasks.modular(5, operation, ordered=True)
    assert len(samples(ordered)) == 25
    assert ordered.X_train.shape[1] == 10
    concat = torch.eye(10, dtype=torch.float64)
    left, right = ordered.pairs_train.T
    assert torch.equal(ordered.X_train, concat[left] + concat[5 + right])
    tokens = tasks.modular(5, operation, representation="tokens")
    assert tokens.X_train.dtype == torch.int64
    assert torch.equal(tokens.X_test, tokens.pairs_test)
    assert torch.equal(tokens.Y_train, tasks.modular(5, operation).Y_train)
    if operation == "add":
        summed = tasks.modular(5, operation, ordered=True, representation="sum")
        assert torch.equal(summed.X_train, torch.eye(5, dtype=torch.float64)[summed.pairs_train].sum(1))
        assert len(samples(tasks.modular(5, operation, representation="concat"))) == 15
        assert tasks.modular(5, operation, representation="concat").X_train.shape[1] == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ordered": False}, "ordered = False: 'subtract mod 5' is not commutative"),
        ({"ordered": 0}, "ordered = False: 'subtract mod 5' is not commutative"),
        ({"representation": "sum"}, "representation = 'sum': 'subtract mod 5' is not commutative"),
        (
            {"representation": "onehot"},
            "representation = 'onehot': must be one of 'auto', 'sum', 'concat', 'tokens'",
        ),
        ({"ordered": "yes"}, "ordered = 'yes': must be one of True, False, 'auto'"),
        ({"dtype": "float32"}, "dtype = 'float32': must be torch.float64"),
        ({"train_fraction": "0.5"}, "train_fraction = '0.5': .*without quotes, train_fraction = 0.5"),
    ],
)
def test_representations_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        tasks.modular(5, "subtract", **settings)


def test_permutations_compose_as_permutations_do():
    task = tasks.permutations(4, dtype=torch.float32)
    elements = list(itertools.permutations(range(4)))
    found = samples(task)
    assert len(found) == 24**2
    for (a, b), c in found.items():
        assert elements[c] == tuple(elements[a][i] for i in elements[b])
    assert task.Y_train.dtype == torch.float32
    assert tasks.permutations(5).Y_train.shape == (7200, 120)
    with pytest.raises(ValueError, match="n = 7: must be an integer from 2 to 6"):
        tasks.permutations(7)


def test_tables_from_arrays_and_files(tmp_path):
    rows = [[0, 1, None], [1, 2, 0], [math.nan, 0, 5]]
    task = tasks.table(rows, 0.5)
    assert samples(task) == {(0, 0): 0, (0, 1): 1, (1, 1): 2, (1, 2): 0, (2, 2): 5}
    assert task.Y_train.shape[1] == 6
    assert task.p is None
    path = tmp_path / "klein.csv"
    path.write_text("\ufeff0,1, \n1,2,0\n\n,0,5.0\n", encoding="utf-8")
    for source in (path, str(path)):
        read = tasks.table(source, 0.5)
        assert samples(read) == samples(task)
        assert torch.equal(read.X_train, task.X_train)
    assert read.name == "klein"
    assert samples(tasks.table(np.array([[0, 1], [0, 1]]), 0.5)) == {
        (a, b): b for a in (0, 1) for b in (0, 1)
    }


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([[0, 1], [1]], r"entries has 2 rows of length \[1, 2\]: must be a square table"),
        ([], "entries has 0 rows"),
        (5, "entries is a int: must be rows of integers or a path"),
        ([[0, "x"], [1, 0]], r"entries\[0\]\[1\] = 'x': must be an integer from 0"),
        ([[0, 1], [1.5, 0]], r"entries\[1\]\[0\] = 1.5"),
        ([[0, 1], [-1, 0]], r"entries\[1\]\[0\] = -1"),
        ([[None, None], [None, 1]], "leaves 1 of 1 samples"),
        ("nowhere.csv", "entries = 'nowhere.csv': no such file"),
    ],
)
def test_tables_that_are_none(entries, message):
    with pytest.raises(ValueError, match=message):
        tasks.table(entries)


@given(n_bits=st.integers(3, 62), k=st.integers(1, 3), seed=seeds)
def test_parity_is_the_product_of_the_first_bits(n_bits, k, seed):
    task = tasks.sparse_parity(n_bits, k, 5, 3, seed)
    X, Y, _ = everything(task)
    assert X.shape == (8, n_bits)
    assert set(X.flatten().tolist()) <= {-1.0, 1.0}
    assert len(X.unique(dim=0)) == 8
    assert torch.equal(X[:, :k].prod(1) < 0, Y[:, 1] == 1)
    assert task.classification


def test_parity_is_balanced_and_runs_out():
    assert tasks.sparse_parity().Y_train[:, 1].mean() == pytest.approx(0.5, abs=0.05)
    assert len(everything(tasks.sparse_parity(3, 3, 4, 4))[0].unique(dim=0)) == 8
    with pytest.raises(ValueError, match=r"n_train \+ n_test = 9: there are only 8 inputs of 3 bits"):
        tasks.sparse_parity(3, 3, 5, 4)


def test_data_of_any_kind():
    numbers = tasks.from_tensors([[1.0, 2], [3, 4]], [1.0, 2], torch.ones(1, 2), [[3]])
    assert numbers.Y_train.shape == (2, 1)
    assert numbers.X_train.dtype == torch.float64
    assert len(numbers.pairs_train) == 0
    assert not numbers.classification
    images, labels = np.zeros((3, 2, 2), dtype=np.float32), np.array([2, 0, 1], dtype=np.uint8)
    task = tasks.from_tensors(images, labels, images[:1], [1], dtype=torch.float32, name="digits")
    assert task.X_train.shape == (3, 2, 2)
    assert task.Y_train.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert task.Y_test.dtype == torch.float32
    assert task.classification
    assert tasks.from_tensors(images, labels, images, labels, classes=5).Y_test.shape == (3, 5)
    tokens = tasks.from_tensors([[0, 1], [2, 3]], [0.5, 1.5], [[1, 1]], [2.0])
    assert tokens.X_train.dtype == torch.int64
    assert tasks.from_tensors([[0, 1]], [0.5], [[0.5, 1]], [2]).X_train.dtype == torch.float64
    assert tasks.from_tensors(np.arange(3), [0, 1, 0], np.arange(2), [0, 1]).X_train.shape == (3, 1)
    weights = torch.ones(2, 1, requires_grad=True)
    assert not tasks.from_tensors(weights, [1.0, 2], weights, [1.0, 2]).X_train.requires_grad


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([[1.0]], [1, 2], [[1]], [1]), "X_train has 1, Y_train has 2"),
        (([[1.0]], [1.0], [[1, 2]], [1]), r"X_train has \(1,\), X_test has \(2,\)"),
        (([[1.0]], [1.0], [[1]], [[1, 2]]), r"Y_train has \(1,\), Y_test has \(2,\)"),
        (([[math.nan]], [1.0], [[1]], [1]), "X_train holds NaN"),
        (([[1.0]], [math.inf], [[1]], [1]), "Y_train holds NaN or inf"),
        (([[1.0]], [[[1.0]]], [[1]], [1]), r"Y_train has shape \(1, 1, 1\)"),
        ((torch.empty(0, 1), [], [[1]], [1]), "X_train is empty"),
        ((1.0, [1.0], [[1]], [1]), "X_train is a number"),
        (([[1.0], [1.0, 2.0]], [1.0, 2], [[1]], [1]), "X_train is no array of numbers"),
        ((["a"], [1.0], [[1]], [1]), "X_train is no array of numbers"),
        (([[1j]], [1.0], [[1]], [1]), "X_train has dtype torch.complex64: must be real"),
        (([[1.0]], [-1], [[1]], [1]), "the labels go down to -1"),
        (([[1.0]], [0], [[1]], [0]), "classes = 1: must be an integer of at least 2"),
    ],
)
def test_arrays_that_do_not_fit(arrays, message):
    with pytest.raises(ValueError, match=message):
        tasks.from_tensors(*arrays)


def test_classes_that_do_not_fit():
    with pytest.raises(ValueError, match="classes = 2: the labels go up to 2"):
        tasks.from_tensors([[1.0]], [2], [[1.0]], [0], classes=2)
    with pytest.raises(ValueError, match="classes = 2: the targets are no labels"):
        tasks.from_tensors([[1.0]], [2.0], [[1.0]], [0], classes=2)


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
    assert tasks.ends(torch.tensor([[0, 2], [1, 1]])) is None  # tokens
    assert tasks.ends(torch.tensor([[0.0, 1.0, 1.0, -1.0, 1.0]])) is None
