"""The laboratory computes what grokutils computes, and answers mouse and keyboard."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import sympy as sp
import torch

from grokutils import isolated, toys

PAGE = "book/laboratory.html"


@pytest.fixture
def page(browser, addresses, listen):
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        opened = context.new_page()
        complaints = listen(opened)
        opened.goto(f"{addresses['file']}/{PAGE}")
        opened.wait_for_function("window.Laboratory && document.getElementById('flow-status').textContent")
        yield opened
        assert not complaints, "\n".join(complaints)


def start(page, p: int, width: int, seed: int) -> tuple[torch.Tensor, list, torch.Tensor, torch.Tensor]:
    """The laboratory's own E and training pairs for a seed, and X and Y of these pairs."""
    E, pairs = page.evaluate(
        """([p, width, seed]) => {
            const random = Laboratory.uniform(seed), { train } = Laboratory.split(p, 0.8, random);
            return [Array.from(Laboratory.normal(p * width, p ** -0.5, random)), train];
        }""",
        [p, width, seed],
    )
    eye = torch.eye(p, dtype=torch.float64)
    a, b = torch.tensor(pairs).T
    return torch.tensor(E, dtype=torch.float64).reshape(p, width), pairs, eye[a] + eye[b], eye[(a + b) % p]


def test_random_start_is_normal_and_the_split_is_one(page):
    E, pairs, *_ = start(page, 17, 192, 3)
    assert abs(E.mean()) < 4 * 17**-0.5 / E.numel() ** 0.5
    assert abs(E.std() * 17**0.5 - 1) < 4 / (2 * E.numel()) ** 0.5
    everything = page.evaluate("Object.values(Laboratory.split(17, 0.8, Laboratory.uniform(3))).flat()")
    assert sorted(map(tuple, everything)) == [(a, b) for a in range(17) for b in range(a, 17)]
    assert len(pairs) == round(0.8 * 153)


@pytest.mark.parametrize("activation", ["relu", "quadratic", "softplus"])
def test_velocity_is_that_of_grokutils(activation, page):
    E, pairs, X, Y = start(page, 11, 96, 1)
    ours = page.evaluate(
        "([E, pairs, s]) => Array.from(Laboratory.velocity(Float64Array.from(E), pairs, 11, 96, s))",
        [E.flatten().tolist(), pairs, activation],
    )
    expected = isolated.velocity(E, X, Y, activation).flatten()
    assert (torch.tensor(ours, dtype=torch.float64) - expected).norm() < 1e-8 * expected.norm()


def test_measures_are_those_of_the_minimum_norm_readout(page):
    E, pairs, X, Y = start(page, 7, 48, 2)
    measured = page.evaluate(
        "([E, pairs]) => { const m = Laboratory.measure(Float64Array.from(E), pairs, 7, 48, 'relu');"
        " return { ...m, answers: Array.from(m.answers) }; }",
        [E.flatten().tolist(), pairs],
    )
    W = isolated.readout(E, X, Y)
    assert measured["normW"] == pytest.approx(float(W.square().sum()), rel=1e-8)
    assert measured["normE"] == pytest.approx(float(E.square().sum()), rel=1e-12)
    eye = torch.eye(7, dtype=torch.float64)
    table = torch.relu((eye[:, None] + eye[None]) @ E) @ W
    assert measured["answers"] == table.argmax(-1).flatten().tolist()


def test_integrator_follows_the_flow(page):
    E, pairs, X, Y = start(page, 5, 48, 0)
    tau, ours = page.evaluate(
        """([E, pairs]) => {
            const flow = Laboratory.flow(Float64Array.from(E), pairs, 5, 48, 'softplus', 1e-9);
            while (flow.tau < 0.2) flow.advance();
            return [flow.tau, Array.from(flow.E)];
        }""",
        [E.flatten().tolist(), pairs],
    )
    expected = scipy.integrate.solve_ivp(
        lambda _, e: isolated.velocity(torch.tensor(e).reshape(5, 48), X, Y, "softplus").flatten().numpy(),
        (0, tau), E.flatten().numpy(), rtol=1e-10, atol=1e-12, method="DOP853",
    ).y[:, -1]  # fmt: skip
    moved = np.linalg.norm(expected - E.flatten().numpy())
    assert np.linalg.norm(np.array(ours) - expected) < 1e-6 * moved


def test_descent_is_that_of_the_toy_chapter(page):
    ours = page.evaluate("Laboratory.descend(0.01, 0.05, [-1, 1], 300)")
    exact = toys.linear_descent([[1, 1]], [2], [-1, 1], sp.Rational(1, 100), sp.Rational(1, 20), 300)
    assert [ours["u"][-1], ours["v"][-1]] == pytest.approx([float(x) for x in exact], rel=1e-9)
    w = np.array([ours["u"], ours["v"]])
    np.testing.assert_allclose(ours["train"], (w.sum(0) - 2) ** 2, rtol=1e-12)
    np.testing.assert_allclose(ours["test"], ((w - 1) ** 2).sum(0), rtol=1e-12)


def test_controls_answer_the_keyboard(page):
    status = page.locator("#toy-status")
    before = status.text_content()
    page.locator("#toy-lambda").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert status.text_content() != before
    assert status.text_content() in page.locator("#toy-plane").get_attribute("aria-label")
    page.locator("#toy-lr").focus()
    page.keyboard.press("End")
    assert "diverges" in status.text_content()


def test_equation_20_runs_groks_and_refuses_a_network_that_is_too_narrow(page):
    page.locator("#flow-p").select_option("11")
    page.locator("#flow-width").fill("96")
    status = page.locator("#flow-status")
    assert "Slow time 0.00" in status.text_content()
    page.locator("#flow-run").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "document.getElementById('flow-status').textContent.includes('Done')", timeout=60_000
    )
    start, end = page.evaluate(
        "[...document.getElementById('flow-status').textContent.matchAll(/squared norm ([\\d.]+) \\(([\\d.]+)/g)].flatMap(m => [+m[2], +m[1]])"
    )
    assert end < start
    page.locator("#flow-width").fill("32")
    assert "too small" in status.text_content()
    assert page.locator("#flow-run").is_disabled()
