"""Tasks: training and test data as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import _checks

OPERATIONS: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda a, b, p: (a + b) % p,
    "subtract": lambda a, b, p: (a - b) % p,
    "multiply": lambda a, b, p: (a * b) % p,
}
RANDOM = "random"  # a table without structure: nothing to generalize to


@dataclass(frozen=True, eq=False)
class Task:
    """Training and test data; rows are samples.

    ``X_*`` are (n, d_in), ``Y_*`` are (n, d_out). For a modular task ``pairs_*`` are the (n, 2) integers
    behind the rows and ``p`` is the modulus; for other tasks they are empty and None.
    """

    name: str
    X_train: Tensor
    Y_train: Tensor
    X_test: Tensor
    Y_test: Tensor
    pairs_train: Tensor
    pairs_test: Tensor
    p: int | None = None

    @property
    def n_train(self) -> int:
        return len(self.X_train)


def modular(
    p: int,
    operation: str | Callable[[int, int], int] = "add",
    train_fraction: float = 0.7,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Task:
    """The table of a binary operation on {0, …, p − 1}, split at random into training and test pairs.

    A commutative operation has one sample for each unordered pair a ≤ b, p(p + 1)/2 of them, with
    X = e_a + e_b in R^p, as in the study (STUDY.md section 4). Any other has one for each ordered pair,
    p² of them, with X = e_a + e_{p+b} in R^{2p}, since e_a + e_b could not tell (a, b) from (b, a).
    Y = e_c in R^p with c = a ∘ b.

    Parameters
    ----------
    p : modulus, at least 2.
    operation : "add", "subtract", "multiply", "random" (a commutative table of random entries),
        or a callable (a, b) → integer, taken mod p.
    train_fraction : share of the samples to train on, in (0, 1); both parts must come out non-empty.
    seed : of the split (and of the random table).

    Raises
    ------
    ValueError
        A value outside these ranges.
    """
    p = _checks.integer("p", p, 2)
    seed = _checks.integer("seed", seed, 0)
    fraction = _checks.real("train_fraction", train_fraction, 0, 1, open_low=True, open_high=True)
    generator = torch.Generator().manual_seed(seed)
    table = _table(p, operation, seed)  # (p, p)
    commutative = bool((table == table.T).all())
    pairs = torch.combinations(torch.arange(p), 2, with_replacement=True)  # (p(p+1)/2, 2)
    if not commutative:
        pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))  # (p², 2)
    n_train = round(fraction * len(pairs))
    if not 0 < n_train < len(pairs):
        raise ValueError(
            f"train_fraction = {train_fraction!r}: leaves {n_train} of {len(pairs)} samples for training; "
            "both parts must be non-empty"
        )
    pairs = pairs[torch.randperm(len(pairs), generator=generator)]
    eye = torch.eye(p, dtype=dtype)
    left, right = pairs.unbind(1)
    X = eye[left] + eye[right] if commutative else torch.cat([eye[left], eye[right]], dim=1)
    Y = eye[table[left, right]]
    label = operation if isinstance(operation, str) else getattr(operation, "__name__", "callable")
    return Task(
        name=f"{label} mod {p}",
        X_train=X[:n_train],
        Y_train=Y[:n_train],
        X_test=X[n_train:],
        Y_test=Y[n_train:],
        pairs_train=pairs[:n_train],
        pairs_test=pairs[n_train:],
        p=p,
    )


def _table(p: int, operation, seed: int) -> Tensor:
    if operation == RANDOM:
        entries = torch.randint(p, (p, p), generator=torch.Generator().manual_seed(seed + 1))
        return torch.triu(entries) + torch.triu(entries, 1).T
    if not callable(operation):
        _checks.one_of("operation", operation, (*OPERATIONS, RANDOM))
        named = OPERATIONS[operation]
        return torch.tensor([[named(a, b, p) for b in range(p)] for a in range(p)])
    entries = [[operation(a, b) for b in range(p)] for a in range(p)]
    if not all(isinstance(c, int) for row in entries for c in row):
        raise ValueError(f"operation = {operation!r}: a callable must map two integers to an integer")
    return torch.tensor([[c % p for c in row] for row in entries])  # % first: a power may exceed 64 bits


def ends(X: Tensor) -> tuple[Tensor, Tensor] | None:
    """Row numbers (left, right), each (n,), where every row of ``X`` (n, d_in) is e_left + e_right; else None.

    X @ E is then E[left] + E[right], cheaper than the product.
    """
    if not (((X == 0) | (X == 1) | (X == 2)).all() and (X.sum(1) == 2).all()):
        return None
    present = (X > 0).byte()
    left = present.argmax(1)  # the first nonzero entry
    return left, X.shape[1] - 1 - present.flip(1).argmax(1)  # the last; the same where it is 2


def regression(X_train, Y_train, X_test, Y_test, name: str = "regression") -> Task:
    """A task from given arrays: (n, d_in) and (n, d_out), or (n,) for a single output.

    Raises
    ------
    ValueError
        Arrays that are empty, not finite, or do not fit together.
    """
    arrays = {}
    given = {"X_train": X_train, "Y_train": Y_train, "X_test": X_test, "Y_test": Y_test}
    for key, value in given.items():
        array = torch.as_tensor(value, dtype=torch.float64)
        arrays[key] = _checks.tensor(key, array[:, None] if array.ndim == 1 else array, ndim=2)
        if arrays[key].numel() == 0:
            raise ValueError(f"{key} is empty: at least one sample is needed")
    for part in ("train", "test"):
        X, Y = arrays[f"X_{part}"], arrays[f"Y_{part}"]
        _checks.same("lengths", **{f"X_{part}": len(X), f"Y_{part}": len(Y)})
    _checks.same("widths", X_train=arrays["X_train"].shape[1], X_test=arrays["X_test"].shape[1])
    _checks.same("widths", Y_train=arrays["Y_train"].shape[1], Y_test=arrays["Y_test"].shape[1])
    none = torch.empty((0, 2), dtype=torch.long)
    return Task(name=name, pairs_train=none, pairs_test=none, p=None, **arrays)


def sum_toy(n_inputs: int = 2, n_test: int = 100, seed: int = 0) -> Task:
    """The toys of figures 1 and 2: learn y = x₁ + … + x_n from the single sample (1, …, 1) → n.

    The test set holds ``n_test`` standard normal inputs.
    """
    n_inputs = _checks.integer("n_inputs", n_inputs, 1)
    n_test = _checks.integer("n_test", n_test, 1)
    generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
    X_test = torch.randn(n_test, n_inputs, generator=generator, dtype=torch.float64)
    X_train = torch.ones(1, n_inputs, dtype=torch.float64)
    return regression(X_train, X_train.sum(1), X_test, X_test.sum(1), name=f"sum of {n_inputs}")
