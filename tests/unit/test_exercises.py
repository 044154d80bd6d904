"""Every exercise accepts the solution, rejects a plausible slip, and is asked in the chapter that it names."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from grokutils import exercises

BOOK = Path(__file__).resolve().parents[2] / "book"

# exercise: (a solution, a plausible slip)
ANSWERS = {
    "01-4": (lambda lr, w: -math.log(2) / math.log(1 - lr * w), lambda lr, w: math.log(2) / (lr * w)),
    "02-2": (
        lambda eta, w1, w2, c: 1 - (2 * eta * (w1 * w2 - c)) ** 2,
        lambda eta, w1, w2, c: (1 - 2 * eta * (w1 * w2 - c)) ** 2,
    ),
    "03-2": (
        lambda w1, w2, lam: 2 * lam * abs(w1 * w2) / math.hypot(w1, w2) ** 3,
        lambda w1, w2, lam: 2 * lam * w1 * w2 / math.hypot(w1, w2) ** 3,
    ),
    "03-3": ([1.0, -4e-5, 2.0], [1.0, 1e-4]),
    "04-1": (
        lambda w: abs(w**2 - w**-2) / (w**2 + w**-2) ** 1.5,
        lambda w: (w**2 - w**-2) / (w**2 + w**-2) ** 1.5,
    ),
    "04-3": (lambda w1, w2: 1 / math.hypot(w1, w2), lambda w1, w2: abs(w2) / math.hypot(w1, w2)),
    "05-3": (lambda w1, w2: -2 * w1**2, lambda w1, w2: -2 * (w1**2 - w2**2)),
    "06-1": (lambda alpha, beta: beta / (alpha + beta), lambda alpha, beta: alpha / (alpha + beta)),
    "07-1": (lambda H, B: H @ B @ B.T @ H.T, lambda H, B: H @ H.T),
    "07-3": (
        lambda E, H, Y, lam, mu: (
            lam * np.sum(E**2) + mu * np.trace(Y.T @ np.linalg.solve(H @ H.T + mu * np.eye(len(H)), Y))
        ),
        lambda E, H, Y, lam, mu: (
            lam * np.sum(E**2) + mu * np.trace(Y.T @ np.linalg.solve(H @ H.T + lam * np.eye(len(H)), Y))
        ),
    ),
    "08-2": (lambda k, a, b: -2 * k * (a - b), lambda k, a, b: -2 * (k * a - b)),
    "09-4": (lambda u, v: (u - 1j * v) / 2, lambda u, v: (u + 1j * v) / 2),
    "10-3": (lambda p, s: s * (p - 1) / p, lambda p, s: s),
    "11-2": (lambda k: k, lambda k: k + 1),
    "12-2": (lambda rate, w: -w / (rate + w), lambda rate, w: -rate / (rate + w)),
    "16-1": (lambda h: h / (1 - h), lambda h: -math.log(1 - h)),
    "17-3": (lambda n, m, w: n * m * w / 2, lambda n, m, w: n * w / 2),
    "13-4": (lambda K: 1 / np.linalg.eigvalsh(K)[-1], lambda K: 1 / np.trace(K)),
    "14-3": (lambda y, L: L * y ** (2 / L), lambda y, L: L * y ** (1 / L)),
    "15-2": (lambda lr, d: lr * d**2 / (1 - lr), lambda lr, d: lr * d**2),
}

every_exercise = pytest.mark.parametrize("name", exercises.REGISTRY)


def asked() -> dict[str, str]:
    """Checks in the chapters: exercise → number of the chapter that holds it."""
    found = {}
    for path in sorted(BOOK.glob("*/[0-9][0-9]_*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            for name in re.findall(r'exercises\.check\("([^"]*)"', "".join(cell["source"])):
                assert name not in found, "asked twice"
                found[name] = path.name[:2]
    return found


@every_exercise
def test_the_solution_is_right_and_the_slip_is_not(name, capsys):
    solution, slip = ANSWERS[name]
    exercises.check(name, solution)
    assert capsys.readouterr().out.startswith(f"Exercise {name}: right. ")
    exercises.check(name, slip)
    assert capsys.readouterr().out.startswith(f"Exercise {name}: not right. Hint: ")


@every_exercise
def test_no_answer_is_not_a_wrong_one(name, capsys):
    exercises.check(name, None)
    assert re.fullmatch(
        rf"Exercise {name}: not answered yet\. Set `answer` to a .+\.\n", capsys.readouterr().out
    )


def test_every_check_is_asked_in_its_chapter_and_every_chapter_has_one():
    assert {name: name[:2] for name in exercises.REGISTRY} == asked()
    assert {name[:2] for name in asked()} == {path.name[:2] for path in BOOK.glob("*/[0-9][0-9]_*.ipynb")}, (
        "a chapter without a check"
    )


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("8-2", 1, r"exercise = '8-2': must be one of 01-4, .*; the nearest is '08-2'"),
        (None, 1, r"exercise = None: must be one of"),
        ("08-2", 3.0, r"answer = 3\.0: must be a function of k, a and b"),
        ("08-2", lambda k: k, r"answer takes \(k\): must be a function of k, a and b"),
        ("08-2", lambda k, a, b: "k", r"answer gives 'k': must give numbers"),
        ("08-2", lambda k, a, b: [k, a], r"shape \(2,\): must give one number"),
        ("07-1", lambda H, B: H, r"shape \(4, 6\): must give an array of shape \(4, 4\)"),
        ("03-3", [1.0, 0.0], r"answer = \[1\.0, 0\.0\]: must be a list of real numbers, none of them zero"),
        ("03-3", 1e-6, r"must be a list of real numbers"),
    ],
)
def test_a_question_or_answer_of_the_wrong_kind_is_refused(name, answer, message):
    with pytest.raises(ValueError, match=message):
        exercises.check(name, answer)


def test_an_answer_that_is_not_finite_is_not_right(capsys):
    exercises.check("04-1", lambda w1: math.nan)
    assert "not right" in capsys.readouterr().out


def test_science_does_not_know_the_exercises():
    package = BOOK.parent / "grokutils"
    knows = [
        path.name
        for path in package.rglob("*.py")
        if path.name != "exercises.py" and re.search(r"import .*\bexercises\b", path.read_text())
    ]
    assert knows == []
