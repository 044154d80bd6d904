"""The laboratory computes what grokutils computes, and answers mouse, keyboard and address."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.integrate
import sympy as sp
import torch

from grokutils import flow, fourier, isolated, tasks, toys, train, two_layer

PAGE = "book/laboratory.html"
SMOOTH = ["quadratic", "softplus"]


@pytest.fixture
def visit(browser, addresses, listen):
    """Open the laboratory as a file, at a fragment and with a context's options; checks what the console said."""
    opened = []

    def go(fragment: str = "", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        page = context.new_page()
        opened.append((context, listen(page)))
        page.goto(f"{addresses['file']}/{PAGE}{fragment}")
        page.wait_for_function("document.getElementById('slow-reading')?.textContent")
        return page

    yield go
    for context, complaints in opened:
        context.close()
        assert not complaints, "\n".join(complaints)


@pytest.fixture
def page(visit):
    return visit()


@pytest.fixture(scope="module")
def lab(browser, addresses, listen):
    """The laboratory, opened once for all that only asks it for numbers."""
    with browser.new_context() as context:
        page = context.new_page()
        complaints = listen(page)
        page.goto(f"{addresses['file']}/{PAGE}")
        page.wait_for_function("document.getElementById('slow-reading')?.textContent")
        yield page
        assert not complaints, "\n".join(complaints)


def task_of(page, p: int, fraction: float, seed: int) -> tasks.Task:
    """The laboratory's own split of the addition table, as a task of grokutils."""
    parts = page.evaluate(
        "([p, f, s]) => { const t = Laboratory.addition(p, f, Laboratory.uniform(s)); return [t.train, t.test]; }",
        [p, fraction, seed],
    )
    eye = torch.eye(p, dtype=torch.float64)
    train, test = (torch.tensor(pairs) for pairs in parts)

    def samples(pairs):
        a, b = pairs.T
        return eye[a] + eye[b], eye[(a + b) % p]

    (X, Y), (X_test, Y_test) = samples(train), samples(test)
    return tasks.Task(f"add mod {p}", X, Y, X_test, Y_test, train, test, p)


def drawn(shape: tuple[int, ...], seed: int, scale: float) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def computed(page, task: tasks.Task, body: str, **values) -> object:
    """What a JavaScript ``body`` returns that sees ``lab``, ``task`` and the values, tensors as Float64Arrays."""
    sent = {n: v.flatten().tolist() if isinstance(v, torch.Tensor) else v for n, v in values.items()}
    arrays = [n for n, v in values.items() if isinstance(v, torch.Tensor)]
    sent["task"] = {"p": task.p, "train": task.pairs_train.tolist(), "test": task.pairs_test.tolist()}
    unpacked = "".join(
        f"const {n} = {f'Float64Array.from(o.{n})' if n in arrays else f'o.{n}'};" for n in sent
    )
    return page.evaluate(f"(o) => {{ const lab = Laboratory; {unpacked} {body} }}", sent)


def flat(E: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
    """The laboratory's θ: E, then W transposed."""
    return torch.cat([E.flatten(), W.mT.flatten()])


def close(ours, expected: torch.Tensor, relative: float) -> bool:
    ours = torch.tensor(list(ours), dtype=torch.float64)
    return bool((ours - expected.flatten()).norm() < relative * expected.norm())


def on_zero_loss(page, p: int, width: int, activation: str) -> tuple[tasks.Task, torch.Tensor, torch.Tensor]:
    """A task, and E with the smallest readout that fits it."""
    task = task_of(page, p, 0.8, 1)
    E = drawn((p, width), 1, p**-0.5)
    return task, E, isolated.readout(E, task.X_train, task.Y_train, activation)


def test_random_start_is_normal_and_the_split_is_one(lab):
    E = torch.tensor(
        lab.evaluate("Array.from(Laboratory.normal(17 * 192, 17 ** -0.5, Laboratory.uniform(3)))")
    )
    assert abs(E.mean()) < 4 * 17**-0.5 / E.numel() ** 0.5
    assert abs(E.std() * 17**0.5 - 1) < 4 / (2 * E.numel()) ** 0.5
    task = task_of(lab, 17, 0.8, 3)
    pairs = torch.cat([task.pairs_train, task.pairs_test]).tolist()
    assert sorted(map(tuple, pairs)) == [(a, b) for a in range(17) for b in range(a, 17)]
    assert task.n_train == round(0.8 * 153)


def test_default_start_is_as_wide_as_pytorchs(lab):
    theta = torch.tensor(lab.evaluate("Array.from(Laboratory.defaultStart(11, 64, Laboratory.uniform(2)))"))
    for layer, fan_in in zip(theta.chunk(2), (11, 64), strict=True):
        bound = fan_in**-0.5
        assert 0.98 * bound < layer.abs().max() <= bound
        assert abs(layer.std() / bound - 3**-0.5) < 0.03


@pytest.mark.parametrize("activation", ["relu", *SMOOTH])
def test_gradient_descent_is_that_of_grokutils(activation, lab):
    p, width, steps = 7, 40, 200
    task = task_of(lab, p, 0.8, 2)
    E, W = drawn((p, width), 0, 0.4), drawn((width, p), 1, 0.2)
    ours = computed(
        lab, task,
        "const t = lab.trainer(theta, task, 40, activation, 0.5, 1e-3);"
        "while (t.step < steps) t.advance(); return Array.from(t.theta);",
        theta=flat(E, W), activation=activation, steps=steps,
    )  # fmt: skip
    network = two_layer(p, width, p, activation)
    start = network.flat(E=E, W=W)[None]
    run = train(
        network, task, steps, theta0=start, lr=0.5, weight_decay=1e-3, record_at=[steps], keep_theta=True
    )
    expected = flat(*network.matrices(torch.from_numpy(run.theta.values[0, -1])).values())
    assert (expected - flat(E, W)).norm() > 0.1 * expected.norm()
    assert close(ours, expected, 1e-10)


@pytest.mark.parametrize("activation", ["relu", *SMOOTH])
def test_velocity_of_equation_20_is_that_of_grokutils(activation, lab):
    task, E, _ = on_zero_loss(lab, 11, 96, activation)
    ours = computed(
        lab, task, "return Array.from(lab.isolatedVelocity(E, task, 96, activation));", E=E, activation=activation
    )  # fmt: skip
    assert close(ours, isolated.velocity(E, task.X_train, task.Y_train, activation), 1e-9)


@pytest.mark.parametrize("activation", SMOOTH)
def test_slow_flow_is_the_tangent_part_of_the_decay(activation, lab):
    task, E, W = on_zero_loss(lab, 7, 48, activation)
    network = two_layer(7, 48, 7, activation)
    off = flat(E, W) + drawn((2 * 7 * 48,), 2, 1e-3)
    velocity, back = computed(
        lab, task,
        "const m = lab.slowMotion(theta, task, 48, activation);"
        "return [Array.from(m.velocity), Array.from(m.back)];",
        theta=off, activation=activation,
    )  # fmt: skip

    def outputs(theta):
        E, V = theta[: 7 * 48].view(7, 48), theta[7 * 48 :].view(7, 48)
        return network.activation.value(task.X_train @ E) @ V.mT

    J = torch.func.jacrev(lambda t: outputs(t).flatten())(off)
    inverse = torch.linalg.pinv(J)
    assert close(velocity, inverse @ (J @ off) - off, 1e-8)
    assert close(back, -inverse @ (outputs(off) - task.Y_train).flatten(), 1e-7)


def test_slow_flow_follows_that_of_grokutils_and_stays_on_zero_loss(lab):
    p, width = 5, 24
    task, E, W = on_zero_loss(lab, p, width, "quadratic")
    tau, ours, loss = computed(
        lab, task,
        "const flow = lab.slowFlow(theta, task, 24, 'quadratic', 1e-7); while (flow.tau < 0.3) flow.advance();"
        "const { E, V } = flow.network();"
        "return [flow.tau, Array.from(flow.x), lab.measure(E, V, task, 24, 'quadratic').train.loss];",
        theta=flat(E, W),
    )  # fmt: skip
    network = two_layer(p, width, p, "quadratic")
    run = flow.reference(
        network,
        network.flat(E=E, W=W),
        task.X_train,
        task.Y_train,
        lam=0,
        tau_end=tau,
        points=2,
        tolerance=1e-6,
    )
    expected = flat(*network.matrices(torch.from_numpy(run.theta.values[-1])).values())
    assert close(torch.tensor(ours) - flat(E, W), expected - flat(E, W), 1e-6)
    assert loss < 1e-16


def test_integrator_follows_equation_20(lab):
    p, width = 5, 48
    task, E, _ = on_zero_loss(lab, p, width, "softplus")
    tau, ours = computed(
        lab, task,
        "const flow = lab.isolatedFlow(E, task, 48, 'softplus', 1e-9); while (flow.tau < 0.2) flow.advance();"
        "return [flow.tau, Array.from(flow.x)];",
        E=E,
    )  # fmt: skip

    def rate(_, e):
        at = torch.tensor(e).reshape(p, width)
        return isolated.velocity(at, task.X_train, task.Y_train, "softplus").flatten().numpy()

    solved = scipy.integrate.solve_ivp(rate, (0, tau), E.flatten().numpy(), "DOP853", rtol=1e-10, atol=1e-12)
    moved = torch.from_numpy(solved.y[:, -1]) - E.flatten()
    assert close(torch.tensor(ours) - E.flatten(), moved, 1e-6)


def test_measures_are_those_of_the_network(lab):
    task, E, W = on_zero_loss(lab, 7, 48, "relu")
    W = W + drawn(W.shape, 3, 0.1)
    measured, powers, places = computed(
        lab, task,
        "const V = theta.subarray(7 * 48), m = lab.measure(E, V, task, 48, 'relu');"
        "return [{ ...m, answers: Array.from(m.answers) }, lab.spectrum(E, 7, 48),"
        " lab.project(E, lab.plane(E, 7, 48, 2), 7, 48)];",
        E=E, theta=flat(E, W),
    )  # fmt: skip
    eye = torch.eye(7, dtype=torch.float64)
    table = torch.relu((eye[:, None] + eye[None]) @ E) @ W
    assert measured["answers"] == table.argmax(-1).flatten().tolist()
    assert measured["norm"] == pytest.approx(float(E.square().sum() + W.square().sum()), rel=1e-12)
    for part in ("train", "test"):
        X, Y = getattr(task, f"X_{part}"), getattr(task, f"Y_{part}")
        guess = torch.relu(X @ E) @ W
        assert measured[part]["loss"] == pytest.approx(float((guess - Y).square().mean()), rel=1e-10)
        right = (guess.argmax(1) == Y.argmax(1)).double().mean()
        assert measured[part]["accuracy"] == pytest.approx(float(right))
    F = fourier.features(E)
    assert powers == pytest.approx((F.abs() ** 2).sum(-1).tolist(), rel=1e-10)
    plane, _ = torch.linalg.qr(torch.stack([F[1].real, F[1].imag], dim=1))
    np.testing.assert_allclose(np.abs(places), (E @ plane).abs(), rtol=1e-9, atol=1e-12)


def test_descent_is_that_of_the_toy_chapter(lab):
    ours = lab.evaluate("Laboratory.descend(0.01, 0.05, [-1, 1], 300)")
    exact = toys.linear_descent([[1, 1]], [2], [-1, 1], sp.Rational(1, 100), sp.Rational(1, 20), 300)
    assert [ours["u"][-1], ours["v"][-1]] == pytest.approx([float(x) for x in exact], rel=1e-9)
    w = np.array([ours["u"], ours["v"]])
    np.testing.assert_allclose(ours["train"], (w.sum(0) - 2) ** 2, rtol=1e-12)
    np.testing.assert_allclose(ours["test"], ((w - 1) ** 2).sum(0), rtol=1e-12)


def reading(page, name: str) -> str:
    return page.locator(f"#{name}-reading").text_content()


def run(page, name: str) -> str:
    """Run an experiment by keyboard to its end; what it then says."""
    page.locator(f"#{name}-run").focus()
    page.keyboard.press("Enter")
    finished(page, name)
    return reading(page, name)


def finished(page, name: str) -> None:
    done = f"document.getElementById('{name}-reading').textContent.includes('Done')"
    page.wait_for_function(done, timeout=150_000)


def test_toy_answers_keyboard_and_click_and_says_that_it_diverges(page):
    before = reading(page, "toy")
    page.locator("#toy-lambda").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert reading(page, "toy") != before
    assert reading(page, "toy") in page.locator("#toy-plane").get_attribute("aria-label")
    page.locator("#toy-plane").click(position={"x": 40, "y": 40})
    assert (
        float(page.locator("#toy-w1").input_value()) < -1 < 2 < float(page.locator("#toy-w2").input_value())
    )
    page.locator("#toy-lr").focus()
    page.keyboard.press("End")
    assert "diverges" in reading(page, "toy")
    page.wait_for_function("document.getElementById('toy-status').textContent.includes('diverges')")


def test_default_network_groks(page):
    text = run(page, "train")
    memorized, loss, accuracy = (int(step) for step in re.findall(r": step (\d+)", text))
    assert loss >= 10 * memorized
    assert accuracy >= 10 * memorized
    assert "100 % of the 7 held-out pairs" in text


def test_too_large_a_learning_rate_is_said(visit):
    page = visit("#train-lr=1&train-activation=quadratic")
    page.locator("#train-run").click()
    page.wait_for_function("document.getElementById('train-reading').textContent.includes('too large')")
    assert page.locator("#train-run").is_disabled()
    page.locator("#train-lr").fill("-1")
    assert page.locator("#train-run").is_enabled()


def test_both_flows_grok_from_one_start_and_equation_20_sooner(page):
    text = run(page, "slow")
    sooner, later = (float(tau) for tau in re.findall(r"halved at τ = (\d+\.\d+)", text))
    assert 0 < sooner < later


def test_equation_20_runs_and_a_longer_end_goes_on_with_it(page):
    page.locator("#flow-p").select_option("11")
    page.locator("#flow-width").fill("96")
    page.locator("#flow-end").fill("1")
    assert "Slow time 0.00" in reading(page, "flow")
    first, start = map(float, re.search(r"norm ([\d.]+) \(([\d.]+)", run(page, "flow")).groups())
    assert first < start
    page.locator("#flow-end").fill("2")
    assert "Slow time 1." in reading(page, "flow")
    second = float(re.search(r"norm ([\d.]+)", run(page, "flow"))[1])
    assert second < first
    page.locator("#flow-seed").fill("5")
    assert "Slow time 0.00" in reading(page, "flow")


def test_no_position_of_the_width_is_dead(page):
    for p in ("17", "11", "7", "13"):
        page.locator("#flow-p").select_option(p)
        page.locator("#flow-width").focus()
        page.keyboard.press("Home")
        assert "Slow time" in reading(page, "flow")
        assert page.locator("#flow-run").is_enabled()


def test_address_shows_what_was_seen(visit):
    page = visit()
    page.locator("#flow-p").select_option("7")
    page.locator("#flow-width").fill("48")
    page.locator("#flow-seed").fill("4")
    page.locator("#flow-end").fill("0.5")
    said = run(page, "flow")
    page.wait_for_function("location.hash.includes('run=flow')")
    fragment = page.evaluate("location.hash")
    again = visit(fragment)
    finished(again, "flow")
    # a step after the end more or less: the runs are cut into slices by the clock, their steps are not
    assert reading(again, "flow") == said
    still = visit(fragment, reduced_motion="reduce")
    assert "Slow time 0.00" in reading(still, "flow")


def test_screen_readers_are_told_only_when_something_ends(page):
    page.evaluate(
        "() => { window.told = 0; new MutationObserver(() => window.told++)"
        ".observe(document.getElementById('flow-status'), { childList: true }); }"
    )
    page.locator("#flow-p").select_option("11")
    page.wait_for_timeout(600)
    run(page, "flow")
    page.wait_for_function("document.getElementById('flow-status').textContent.includes('Done')")
    assert page.evaluate("window.told") <= 2


def test_drawings_follow_mode_and_size(page):
    def ink():
        return page.evaluate(
            "() => { const c = document.getElementById('toy-losses'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            " let sum = 0, n = 0; for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 250) { sum += d[i] + d[i + 1] + d[i + 2]; n++; }"
            " return [sum / n, c.width]; }"
        )

    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_timeout(100)
    light, wide = ink()
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(100)
    dark, _ = ink()
    assert dark > light + 50
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(200)
    assert ink()[1] != wide
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_every_control_and_picture_has_a_name(lab):
    unnamed = lab.evaluate(
        "[...document.querySelectorAll('.lab input, .lab select')].filter(i => !i.labels.length).length"
        " + [...document.querySelectorAll('.lab canvas')].filter(c => !c.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
