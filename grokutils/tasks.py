"""Tasks: training and test data as tensors.

The field's tasks by name (:func:`modular`, :func:`permutations`, :func:`sparse_parity`), any table of a binary
operation (:func:`table`), and any data (:func:`from_tensors`).
"""

from __future__ import annotations

import csv
import itertools
import math
import operator
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _checks

OPERATIONS: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda a, b, p: a + b,
    "subtract": lambda a, b, p: a - b,
    "multiply": lambda a, b, p: a * b,
    "divide": lambda a, b, p: a * pow(b, -1, p),
    "x^2+y^2": lambda a, b, p: a * a + b * b,
    "x^2+xy+y^2": lambda a, b, p: a * a + a * b + b * b,
    "x^2+xy+y^2+x": lambda a, b, p: a * a + a * b + b * b + a,
    "x^3+xy": lambda a, b, p: a**3 + a * b,
}
RANDOM = "random"  # a table without structure: nothing to generalize to
REPRESENTATIONS = ("auto", "sum", "concat", "tokens")
HOLE = -1  # the entry of a table whose pair is left out
BITS = 62  # of a parity: Python samples without replacement from ranges that fit a machine word


def _no_pairs() -> Tensor:
    return torch.empty((0, 2), dtype=torch.long)


@dataclass(frozen=True, eq=False)
class Task:
    """Training and test data; the first dimension counts samples.

    ``X_*`` are (n, …): numbers of the task's dtype, or tokens as integers. ``Y_*`` are (n, d_out): values, or
    probabilities of classes. For a table ``pairs_*`` are the (n, 2) integers behind the samples, otherwise they are
    empty. ``p`` is the modulus of a modular task and None for others.
    """

    name: str
    X_train: Tensor
    Y_train: Tensor
    X_test: Tensor
    Y_test: Tensor
    pairs_train: Tensor = field(default_factory=_no_pairs)
    pairs_test: Tensor = field(default_factory=_no_pairs)
    p: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no tensor, or does not fit together."""
        for part in ("train", "test"):
            named = {f"{kind}_{part}": getattr(self, f"{kind}_{part}") for kind in "XY"}
            for key, each in named.items():
                if not isinstance(each, Tensor):
                    raise ValueError(
                        f"{key} is a {type(each).__name__}: must be a torch.Tensor (from_tensors takes arrays and lists)"
                    )
            Y = named[f"Y_{part}"]
            if Y.ndim != 2:
                raise ValueError(f"Y_{part} has shape {tuple(Y.shape)}: must be (n, d_out)")
            _checks.same("lengths", **{key: len(each) for key, each in named.items()})

    @property
    def n_train(self) -> int:
        return len(self.X_train)

    @property
    def classification(self) -> bool:
        """Whether every target is a row of probabilities, so that there is an accuracy."""
        return all(_probabilities(Y) for Y in (self.Y_train, self.Y_test))


def _probabilities(Y: Tensor) -> bool:
    return Y.shape[1] > 1 and bool((Y >= 0).all()) and torch.allclose(Y.sum(1), Y.new_ones(len(Y)))


# --- tables of a binary operation ------------------------------------------------------------------------------


def modular(
    p: int,
    operation: str | Callable[[int, int], int] = "add",
    train_fraction: float = 0.7,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    *,
    ordered: bool | str = "auto",
    representation: str = "auto",
) -> Task:
    """The table of a binary operation on {0, …, p − 1}, split at random into training and test pairs.

    By default a commutative operation has one sample for each unordered pair a ≤ b, p(p + 1)/2 of them, with
    X = e_a + e_b in R^p, as in the study's experiments. Any other has one for each ordered pair,
    p² of them, with X = e_a + e_{p+b} in R^{2p}, since e_a + e_b could not tell (a, b) from (b, a).
    Y = e_c in R^p with c = a ∘ b.

    Parameters
    ----------
    p : modulus, at least 2.
    operation : a name of :data:`OPERATIONS`, "random" (a commutative table of random entries), or a callable
        (a, b) → integer, taken mod p. A pair for which there is no result (the callable raises ValueError or
        ZeroDivisionError, or returns None) is left out: for "divide", those whose b has no inverse.
    train_fraction : share of the samples to train on, in (0, 1); both parts must come out non-empty.
    seed : of the split (and of the random table).
    dtype : of inputs and targets, torch.float64 or torch.float32.
    ordered : True for all ordered pairs, also of a commutative table; False for a ≤ b only; "auto" as above.
    representation : "sum" (e_a + e_b), "concat" (e_a + e_{p+b}), "tokens" (the integers a, b), or "auto" as above.

    Returns
    -------
    Task with X (n, p), (n, 2p) or, of tokens, (n, 2), and Y (n, p).

    Raises
    ------
    ValueError
        A value outside these ranges.
    """
    p = _checks.integer("p", p, 2)
    seed = _checks.integer("seed", seed, 0)
    entries = _modular_table(p, operation, seed)
    label = operation if isinstance(operation, str) else getattr(operation, "__name__", "callable")
    return _split(f"{label} mod {p}", entries, p, train_fraction, seed, dtype, ordered, representation, p)


def permutations(
    n: int = 5,
    train_fraction: float = 0.5,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    *,
    representation: str = "auto",
) -> Task:
    """Composition in the symmetric group S_n: n! elements in lexicographic order, (a ∘ b)(i) = a(b(i)).

    Parameters and representations as in :func:`modular`; ``n`` is from 2 to 6 (S_6 has 518,400 pairs).
    """
    n = _checks.integer("n", n, 2, 6)
    elements = np.array(list(itertools.permutations(range(n))))  # (n!, n)
    digits = n ** np.arange(n)[::-1]
    number = np.zeros(n**n, dtype=int)  # of the element whose values are these digits in base n
    number[elements @ digits] = np.arange(len(elements))
    entries = torch.from_numpy(number[elements[:, elements] @ digits])  # (n!, n!)
    seed = _checks.integer("seed", seed, 0)
    return _split(f"S{n}", entries, len(elements), train_fraction, seed, dtype, True, representation)


def table(
    entries: Any,
    train_fraction: float = 0.7,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    *,
    ordered: bool | str = "auto",
    representation: str = "auto",
    name: str | None = None,
) -> Task:
    """A binary operation given by its own table: a ∘ b stands in row a and column b.

    Parameters
    ----------
    entries : a square array or list of lists of integers from 0, or the path of a CSV file with such rows and no
        header. None, NaN or an empty cell leaves its pair out. There are as many classes as the largest entry says.
    train_fraction : as in :func:`modular`.
    seed : as in :func:`modular`.
    dtype : as in :func:`modular`.
    ordered : as in :func:`modular`.
    representation : as in :func:`modular`.
    name : of the task; that of the file, or "table".

    Raises
    ------
    ValueError
        A table that is not square or holds something else (the row and the column are named).
    """
    if isinstance(entries, str | os.PathLike):
        path = Path(entries)
        if not path.is_file():
            raise ValueError(f"entries = '{path}': no such file")
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows: list = [row for row in csv.reader(file) if row]
        name = name or path.stem
    else:
        try:
            rows = [list(row) for row in entries]
        except TypeError as error:
            raise ValueError(
                f"entries is a {type(entries).__name__}: must be rows of integers or a path"
            ) from error
    if not rows or {len(row) for row in rows} != {len(rows)}:
        lengths = sorted({len(row) for row in rows})
        raise ValueError(f"entries has {len(rows)} rows of length {lengths}: must be a square table")
    whole = torch.tensor([[_entry(value, a, b) for b, value in enumerate(row)] for a, row in enumerate(rows)])
    seed = _checks.integer("seed", seed, 0)
    return _split(
        name or "table", whole, int(whole.max()) + 1, train_fraction, seed, dtype, ordered, representation
    )


def _entry(value, a: int, b: int) -> int:
    if isinstance(value, str):
        value = value.strip() or None
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return HOLE
    try:
        number = float(value)
        if number >= 0 and number.is_integer():
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(
        f"entries[{a}][{b}] = {value!r}: must be an integer from 0, or empty to leave the pair out"
    )


def _modular_table(p: int, operation, seed: int) -> Tensor:
    """The (p, p) results mod p, :data:`HOLE` where there is none."""
    if isinstance(operation, str) and operation == RANDOM:
        entries = torch.randint(p, (p, p), generator=torch.Generator().manual_seed(seed + 1))
        return torch.triu(entries) + torch.triu(entries, 1).T
    if not callable(operation):
        _checks.one_of("operation", operation, (*OPERATIONS, RANDOM))
        named = OPERATIONS[operation]
        operation = lambda a, b: named(a, b, p)  # noqa: E731
    reason = None
    entries = torch.full((p, p), HOLE)
    for a, b in itertools.product(range(p), repeat=2):
        try:
            result = operation(a, b)
        except (ValueError, ZeroDivisionError) as error:
            result, reason = None, error
        if result is None:
            continue
        try:
            entries[a, b] = operator.index(result) % p  # % first: a power may exceed 64 bits
        except TypeError as error:
            raise ValueError(
                f"operation = {operation!r}: gives {result!r} for ({a}, {b}); must map two integers to an integer"
            ) from error
    if (entries == HOLE).all():
        raise ValueError(f"operation = {operation!r}: gives no integer for any pair ({reason})")
    return entries


def _split(
    name: str, entries: Tensor, classes: int, train_fraction, seed: int, dtype, ordered, representation,
    p: int | None = None,
) -> Task:  # fmt: skip
    """A task from a table (q, q) of results below ``classes``."""
    fraction = _checks.real("train_fraction", train_fraction, 0, 1, open_low=True, open_high=True)
    _checks.one_of("ordered", ordered, (True, False, "auto"))
    ordered = ordered if isinstance(ordered, str) else bool(ordered)
    _checks.one_of("representation", representation, REPRESENTATIONS)
    _checks.floating("dtype", dtype)
    commutative = bool((entries == entries.T).all())
    if not commutative and (ordered is False or representation == "sum"):
        named = "ordered = False" if ordered is False else "representation = 'sum'"
        raise ValueError(f"{named}: '{name}' is not commutative, so (a, b) and (b, a) are different samples")
    if ordered == "auto":
        ordered = not commutative
    if representation == "auto":
        representation = "sum" if commutative and not ordered else "concat"
    q = torch.arange(len(entries))
    pairs = torch.cartesian_prod(q, q) if ordered else torch.combinations(q, 2, with_replacement=True)
    pairs = pairs[entries[pairs[:, 0], pairs[:, 1]] != HOLE]
    n_train = round(fraction * len(pairs))
    if not 0 < n_train < len(pairs):
        raise ValueError(
            f"train_fraction = {train_fraction!r}: leaves {n_train} of {len(pairs)} samples for training; "
            "both parts must be non-empty"
        )
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))]
    left, right = pairs.unbind(1)
    eye = torch.eye(len(entries), dtype=dtype)
    X = {
        "sum": lambda: eye[left] + eye[right],
        "concat": lambda: torch.cat([eye[left], eye[right]], dim=1),
        "tokens": lambda: pairs.clone(),
    }[representation]()
    Y = torch.eye(classes, dtype=dtype)[entries[left, right]]
    cut = [n_train, len(pairs) - n_train]
    (X_train, X_test), (Y_train, Y_test), (first, rest) = (whole.split(cut) for whole in (X, Y, pairs))
    return Task(name, X_train, Y_train, X_test, Y_test, first, rest, p)


def ends(X: Tensor) -> tuple[Tensor, Tensor] | None:
    """Row numbers (left, right), each (n,), where every row of ``X`` (n, d_in) is e_left + e_right; else None.

    X @ E is then E[left] + E[right], cheaper than the product.
    """
    if X.ndim != 2 or not X.is_floating_point():
        return None
    present = (X != 0).view(torch.uint8)
    left = present.argmax(1)  # the first nonzero entry
    right = X.shape[1] - 1 - present.flip(1).argmax(1)  # the last; the same where it is 2
    first, last = (X.gather(1, index[:, None])[:, 0] for index in (left, right))
    expected = 1 + (left == right).to(X.dtype)
    if not ((X.abs().sum(1) == 2) & (first == expected) & (last == expected)).all():
        return None
    return left, right


# --- other data ------------------------------------------------------------------------------------------------


def from_tensors(
    X_train, Y_train, X_test, Y_test, *, name: str = "data", classes: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Task:  # fmt: skip
    """A task from given data: tensors, NumPy arrays or lists, the first dimension counting samples.

    Integers name things, floating-point numbers measure them. Inputs are tokens where both parts hold integers, and
    numbers otherwise; (n,) stands for (n, 1). Targets (n,) are class labels where both parts hold integers, and
    become one-hot; otherwise they are values (n, d_out), (n,) standing for a single output.

    Parameters
    ----------
    X_train : (n, …) inputs to train on.
    Y_train : (n,) or (n, d_out), their targets.
    X_test : (n, …) held-out inputs.
    Y_test : (n,) or (n, d_out), their targets.
    name : of the task, for messages and records.
    classes : number of classes; one more than the largest label where it is left out.
    dtype : of inputs (but tokens) and targets, torch.float64 or torch.float32.

    Returns
    -------
    Task.

    Raises
    ------
    ValueError
        Arrays that are empty, ragged, not finite, or do not fit together.
    """
    _checks.floating("dtype", dtype)
    given = {"X_train": X_train, "Y_train": Y_train, "X_test": X_test, "Y_test": Y_test}
    arrays = {key: _array(key, value) for key, value in given.items()}
    for part in ("train", "test"):
        X, Y = arrays[f"X_{part}"], arrays[f"Y_{part}"]
        _checks.same("lengths", **{f"X_{part}": len(X), f"Y_{part}": len(Y)})
    tokens = all(not arrays[key].is_floating_point() for key in ("X_train", "X_test"))
    labels = all(
        not arrays[key].is_floating_point() and arrays[key].ndim == 1 for key in ("Y_train", "Y_test")
    )
    if classes is not None and not labels:
        raise ValueError(
            f"classes = {classes!r}: the targets are no labels; those are integers of shape (n,)"
        )
    if labels:
        classes = _classes(classes, arrays["Y_train"], arrays["Y_test"])
    for key, array in arrays.items():
        if key[0] == "Y" and labels:
            arrays[key] = torch.eye(classes or 1, dtype=dtype)[array.long()]
            continue
        array = array[:, None] if array.ndim == 1 else array
        if key[0] == "Y" and array.ndim != 2:
            raise ValueError(f"{key} has shape {tuple(array.shape)}: must be (n,) or (n, outputs)")
        arrays[key] = array.long() if key[0] == "X" and tokens else _checks.tensor(key, array.to(dtype))
    for kind in ("X", "Y"):
        train, test = (arrays[f"{kind}_{part}"] for part in ("train", "test"))
        widths = {f"{kind}_train": tuple(train.shape[1:]), f"{kind}_test": tuple(test.shape[1:])}
        _checks.same("shapes of samples", **widths)
    return Task(name, arrays["X_train"], arrays["Y_train"], arrays["X_test"], arrays["Y_test"])


def _array(name: str, value) -> Tensor:
    try:
        array = torch.as_tensor(value).detach().cpu()  # where networks are evaluated
    except (TypeError, ValueError, RuntimeError) as error:
        try:  # lists of rows that are arrays themselves
            array = torch.as_tensor(np.asarray(value))
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{name} is no array of numbers ({error})") from error
    if array.is_complex():
        raise ValueError(f"{name} has dtype {array.dtype}: must be real")
    if array.ndim == 0 or array.numel() == 0:
        raise ValueError(
            f"{name} is empty: at least one sample is needed" if array.ndim else f"{name} is a number"
        )
    return array


def _classes(classes: int | None, *labels: Tensor) -> int:
    low, high = min(int(y.min()) for y in labels), max(int(y.max()) for y in labels)
    if low < 0:
        raise ValueError(f"the labels go down to {low}: must be integers from 0")
    if classes is None:
        classes = high + 1
    classes = _checks.integer("classes", classes, 2)
    if high >= classes:
        raise ValueError(f"classes = {classes}: the labels go up to {high}")
    return classes


def sum_toy(n_inputs: int = 2, n_test: int = 100, seed: int = 0) -> Task:
    """The toys of figures 1 and 2: learn y = x₁ + … + x_n from the single sample (1, …, 1) → n.

    The test set holds ``n_test`` standard normal inputs.
    """
    n_inputs = _checks.integer("n_inputs", n_inputs, 1)
    n_test = _checks.integer("n_test", n_test, 1)
    generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
    X_test = torch.randn(n_test, n_inputs, generator=generator, dtype=torch.float64)
    X_train = torch.ones(1, n_inputs, dtype=torch.float64)
    return from_tensors(X_train, X_train.sum(1), X_test, X_test.sum(1), name=f"sum of {n_inputs}")


def sparse_parity(
    n_bits: int = 40,
    k: int = 3,
    n_train: int = 1000,
    n_test: int = 1000,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Task:
    """Whether an odd number of the first ``k`` of ``n_bits`` random signs is −1; the other bits are noise.

    X holds ±1, (n, n_bits); Y is one-hot over even and odd. All samples are different.

    Raises
    ------
    ValueError
        Values out of range, or more samples than there are inputs, 2^n_bits.
    """
    n_bits = _checks.integer("n_bits", n_bits, 1, BITS)
    k = _checks.integer("k", k, 1, n_bits)
    _checks.floating("dtype", dtype)
    n_train, n_test = _checks.integer("n_train", n_train, 1), _checks.integer("n_test", n_test, 1)
    if n_train + n_test > 2**n_bits:
        raise ValueError(
            f"n_train + n_test = {n_train + n_test}: there are only {2**n_bits} inputs of {n_bits} bits"
        )
    drawn = random.Random(_checks.integer("seed", seed, 0)).sample(range(2**n_bits), n_train + n_test)
    bits = (torch.tensor(drawn)[:, None] >> torch.arange(n_bits)) & 1  # (n, n_bits)
    X, odd = 1 - 2 * bits.to(dtype), bits[:, :k].sum(1) % 2
    cut = [n_train, n_test]
    (X_train, X_test), (Y_train, Y_test) = X.split(cut), odd.split(cut)
    name = f"({n_bits}, {k}) parity"
    return from_tensors(X_train, Y_train, X_test, Y_test, name=name, classes=2, dtype=dtype)
