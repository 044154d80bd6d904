"""Simulated grokking: against loops written by hand, its own limits, and everything that can stop a run."""

import dataclasses
import math
import os
import signal

import numpy as np
import pytest
import torch
import xarray as xr

from grokutils import errors, isolated, records, tasks
from grokutils.isolated import recording, simulation

TASK = tasks.modular(5, train_fraction=0.6)  # 9 training samples
SMALL = {"width": 24, "seeds": (0, 1, 2), "step": 0.01, "tau_end": 1.0, "points": 12, "progress": False}


def simulate(task=TASK, **changed):
    return isolated.simulate(task, **{**SMALL, **changed})


def start(seed, width=24, std=5**-0.5, d_in=5):
    generator = torch.Generator().manual_seed(seed)
    return std * torch.randn(d_in, width, generator=generator, dtype=torch.float64)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("method", simulation.METHODS)
@pytest.mark.parametrize("activation", ["relu", torch.sin])
def test_a_seeds_numbers_depend_on_nothing_else(threads, method, activation):
    threads(1)
    alone = simulate(seeds=(1,), method=method, activation=activation)
    again = simulate(seeds=(1,), method=method, activation=activation)
    assert alone.identical(again)
    threads(3)
    among = simulate(seeds=(2, 1, 0), method=method, activation=activation)
    assert among.isel(run=[1]).drop_vars("run").identical(alone.drop_vars("run"))
    assert not np.array_equal(among.cost[0], among.cost[1])


@pytest.mark.parametrize("lam", [0.0, 0.3])
def test_euler_is_the_loop_written_out(lam):
    task = TASK
    runs = simulate(lam=lam, init_std=0.7, snapshots=(0, 0.5, 1))
    for run, seed in enumerate(SMALL["seeds"]):
        E = start(seed, std=0.7)
        states = [E]
        for _ in range(100):
            E = E + 0.01 * isolated.velocity(E, task.X_train, task.Y_train, "relu", lam)
            states.append(E)
        one = runs.isel(run=run)
        assert one.evaluations.values.tolist() == records.log_spaced(100, 12).tolist()
        np.testing.assert_allclose(one.tau, one.evaluations * 0.01, rtol=1e-12)
        for i, done in enumerate(one.evaluations.values.astype(int)):
            E = states[done]
            W = isolated.readout(E, task.X_train, task.Y_train, "relu", lam)
            H = (task.X_train @ E).relu()
            tested = (task.X_test @ E).relu() @ W
            K = H @ H.T + lam * torch.eye(9, dtype=torch.float64)
            right = (tested.argmax(1) == task.pairs_test.sum(1) % 5).double().mean()
            at = one.isel(step=i)
            assert at.norm2_E == pytest.approx(float(E.square().sum()), rel=1e-9)
            assert at.norm2_W == pytest.approx(float(W.square().sum()), rel=1e-9)
            cost = isolated.cost(E, task.X_train, task.Y_train, "relu", lam)
            assert at.cost == pytest.approx(float(cost), rel=1e-9)
            assert at.test_accuracy == float(right)
            assert at.test_loss == pytest.approx(float((tested - task.Y_test).square().mean()), rel=1e-8)
            misfit = float((H @ W - task.Y_train).norm())
            assert at.residual == pytest.approx(misfit, rel=1e-6, abs=1e-10)
            exact = float(torch.linalg.cond(K, 1))
            assert exact / 3 <= at.condition <= exact * (1 + 1e-6)  # LAPACK's estimate is a lower bound
        for snapshot in (0, 0.5, 1):
            at = int(np.abs(one.tau.values - snapshot).argmin())
            E = states[int(one.evaluations[at])]
            kept = one.E.sel(snapshot=snapshot, method="nearest")
            assert kept.snapshot == one.tau[at]
            np.testing.assert_allclose(kept, E, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_predictions_are_a_table_in_the_same_order_for_every_split(operation):
    splits = [tasks.modular(5, operation, 0.6, seed) for seed in range(3)]
    runs = simulate(splits, width=48)
    expected = {"add": (runs.a + runs.b) % 5, "subtract": (runs.a - runs.b) % 5}[operation]
    right = runs.prediction.isel(step=-1) == expected
    np.testing.assert_allclose(right.where(runs.is_train).mean("pair"), 1)
    np.testing.assert_allclose(right.where(~runs.is_train).mean("pair"), runs.test_accuracy.isel(step=-1))
    for run, split in enumerate(splits):
        pairs = runs[["a", "b"]].isel(pair=runs.is_train.isel(run=run).values)
        listed = set(zip(pairs.a.values.tolist(), pairs.b.values.tolist(), strict=True))
        assert listed == {tuple(pair) for pair in split.pairs_train.tolist()}


@pytest.mark.parametrize("activation", ["relu", "softplus", "quadratic"])
@pytest.mark.parametrize("lam", [0.0, 0.3])
def test_the_cost_never_rises_and_the_fit_stays_exact(activation, lam):
    tolerance = (
        1e-3 if activation == "relu" else 1e-6
    )  # at a kink that holds the flow, steps are of that size
    flow = {"method": "adaptive", "tau_end": 2.0, "points": 40}
    runs = simulate(activation=activation, lam=lam, tolerance=tolerance, **flow)
    change = runs.cost.diff("step") / runs.cost.isel(step=0)
    assert (change < tolerance / 10).all()
    assert (runs.cost.isel(step=-1) < 0.9 * runs.cost.isel(step=0)).all()
    if not lam:
        assert (runs.residual < 1e-9).all()
        assert (runs.train_accuracy == 1).all()
        np.testing.assert_allclose(runs.cost, runs.norm2_E + runs.norm2_W, rtol=1e-9)


def test_the_norm_settles_where_both_layers_weigh_the_same():
    """½ d‖E‖²/dτ = ‖W‖² − ‖E‖² for ReLU: at the end of the flow the layers are balanced."""
    runs = simulate(method="adaptive", tau_end=20.0, step=0.1, seeds=(0,))
    final = runs.isel(step=-1)
    np.testing.assert_allclose(final.norm2_W / final.norm2_E, 1, atol=0.05)


def test_euler_converges_to_the_adaptive_flow_at_first_order():
    smooth = {"activation": "softplus", "seeds": (0,), "tau_end": 1.0, "points": 5}
    exact = simulate(method="adaptive", tolerance=1e-9, **smooth)
    final = float(exact.norm2_E[0, -1])
    errors = [
        float(simulate(**{**smooth, "step": step}).norm2_E[0, -1]) - final for step in (1e-3, 5e-4, 2.5e-4)
    ]
    assert abs(errors[-1]) < 1e-2 * final
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.15)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.15)


def test_the_adaptive_flow_converges_with_its_tolerance():
    flow = {"activation": "softplus", "seeds": (0,), "method": "adaptive", "snapshots": (1.0,)}
    exact = simulate(tolerance=1e-10, **flow)
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        rough = simulate(tolerance=tolerance, **flow)
        errors.append(float(abs(rough.E - exact.E).max()))
        assert int(rough.evaluations[0, -1]) < int(exact.evaluations[0, -1])
    assert errors[0] < 1e-2
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 10


@pytest.mark.parametrize("method", simulation.METHODS)
def test_single_precision_is_near(method):
    single = simulate(
        dataclasses.replace(tasks.modular(5, train_fraction=0.6, dtype=torch.float32)), method=method
    )
    assert np.isfinite(single.cost).all()
    assert (single.residual < 1e-3).all()


def test_a_task_without_a_table():
    generator = torch.Generator().manual_seed(0)
    X, Y = torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)
    runs = simulate(tasks.from_tensors(X[:5], Y[:5], X[5:], Y[5:]))
    assert "prediction" not in runs
    assert "test_accuracy" not in runs
    records.check(runs)
    assert (runs.residual < 1e-8).all()


@pytest.mark.parametrize("method", simulation.METHODS)
def test_a_start_may_be_given(method, tmp_path):
    # The adaptive method takes its absolute tolerance from the start's own size, so the two agree as far as it asks.
    settings = {"method": method, "tolerance": 1e-5, "tau_end": 0.2}
    agree = {"euler": 1e-12, "adaptive": 1e-4}[method]
    drawn = simulate(snapshots=(0, 0.2), **settings)
    given = simulate(start=torch.from_numpy(drawn.E.values[:, 0]), snapshots=(0, 0.2), **settings)
    np.testing.assert_allclose(given.cost, drawn.cost, rtol=agree)
    one = simulate(seeds=(7,), start=start(2), path=tmp_path / "run.nc", **settings)
    np.testing.assert_allclose(one.cost[0], drawn.cost[2], rtol=agree)
    with pytest.raises(ValueError, match=r"holds (seed 7 of other data or start|records of other settings)"):
        simulate(seeds=(7,), start=start(1), path=tmp_path / "run.nc", **settings)


def test_records_follow_the_schema():
    runs = records.check(simulate(snapshots=(0, 1)))
    assert runs.attrs["ended"] == "tau_end"
    np.testing.assert_allclose(runs.test_baseline, TASK.Y_test.square().mean())
    np.testing.assert_allclose(runs.norm2, runs.norm2_E + runs.norm2_W)


def test_grids_and_attributes():
    runs = simulate(tau_end=0.5, points=1000)
    assert runs.sizes["step"] == 51
    np.testing.assert_allclose(runs.tau, np.arange(51) * 0.01)
    assert runs.attrs["tau_end"] == 0.5
    assert runs.attrs["torch"] == torch.__version__.split("+")[0]
    assert runs.seed.values.tolist() == [0, 1, 2]
    assert runs.cost.dims == ("run", "step")


# --- records on disk -----------------------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch):
    """The seeds that are computed, as they are."""
    seeds, run = [], simulation._run
    monkeypatch.setattr(simulation, "_run", lambda seed, *rest: (seeds.append(seed), run(seed, *rest))[1])
    return seeds


def test_runs_are_saved_and_only_missing_seeds_are_computed(tmp_path, computed):
    path = tmp_path / "runs.nc"
    first = simulate(seeds=(0, 1), path=path, snapshots=(0, 1))
    assert records.load(path).identical(first)
    assert computed == [0, 1]
    both = simulate(seeds=(2, 1, 5), path=path, snapshots=(0, 1))
    assert computed == [0, 1, 2, 5]
    assert both.seed.values.tolist() == [2, 1, 5]
    fresh = simulate(seeds=(2, 1, 5), snapshots=(0, 1))
    xr.testing.assert_identical(both, fresh)
    assert sorted(records.load(path).seed.values.tolist()) == [0, 1, 2, 5]
    del computed[:]
    assert simulate(seeds=(0, 1), path=path, snapshots=(0, 1)).identical(first)
    assert computed == []
    assert os.listdir(tmp_path) == ["runs.nc"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"width": 25}, "'width': 24"),
        ({"activation": "tanh"}, "'activation': 'relu'"),
        ({"step": 0.02}, "'step': 0.01"),
        ({"method": "adaptive"}, "'method': 'euler'"),
        ({"lam": 0.1}, "'lam': 0.0"),
        ({"init_std": 1.0}, "'init_std'"),
        ({"snapshots": (1.0,)}, "'snapshots'"),
        ({"task": tasks.modular(5, "multiply", 0.6)}, "'task': 'add mod 5'"),
        ({"task": tasks.modular(5, train_fraction=0.6, seed=1)}, "seed 0 of other data or start"),
        ({"task": tasks.modular(5, train_fraction=0.5)}, "seed 0 of other data or start"),
    ],
)
def test_records_of_other_settings_are_refused(tmp_path, computed, changed, message):
    path = tmp_path / "runs.nc"
    stored = simulate(seeds=(0,), path=path)
    with pytest.raises(ValueError, match=rf"path = '.*runs.nc': holds .*{message}.*choose another path"):
        simulate(**{"seeds": (0,), "path": path, **changed})
    assert computed == [0]
    assert records.load(path).identical(stored)


def test_two_callables_of_one_name_are_told_apart(tmp_path):
    path = tmp_path / "runs.nc"
    simulate(seeds=(0,), path=path, activation=lambda Z: Z.sin())
    simulate(seeds=(0,), path=path, activation=lambda Z: Z.sin())
    with pytest.raises(ValueError, match=r"holds records of other settings, \{'activation'"):
        simulate(seeds=(0,), path=path, activation=lambda Z: Z.cos())


def test_a_file_of_something_else_is_refused(tmp_path, computed):
    path = tmp_path / "runs.nc"
    path.write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"path = '.*runs.nc': is not a file of records"):
        simulate(path=path)
    assert path.read_bytes() == b"half a file"
    records.save(xr.Dataset({"x": ("run", [1.0])}), path)
    with pytest.raises(ValueError, match=r"path = '.*runs.nc': holds records of other settings"):
        simulate(path=path)
    assert computed == []


def test_a_place_that_takes_no_file_is_refused_before_any_work(tmp_path, computed):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none" / "runs.nc", tmp_path / "file" / "runs.nc", tmp_path / "runs.txt"):
        with pytest.raises(ValueError, match="path = "):
            simulate(path=path)
    assert computed == []


def test_a_full_disk_leaves_the_runs_saved_before(tmp_path, monkeypatch):
    path = tmp_path / "runs.nc"
    before = simulate(seeds=(0,), path=path)

    def full(self, target, **options):
        with open(target, "wb") as file:
            file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(OSError, match="No space left"):
        simulate(path=path)
    assert records.load(path).identical(before)
    assert os.listdir(tmp_path) == ["runs.nc"]


# --- what stops a run ----------------------------------------------------------------------------------------------


class Bomb:
    """The softplus activation, until it has been used ``left`` times; then it does something else once."""

    __name__ = "bomb"

    def __init__(self, left, act):
        self.left, self.act = left, act

    def __call__(self, Z):
        self.left -= 1
        if self.left == 0:
            self.act()
        return torch.nn.functional.softplus(Z)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "act", [interrupt, lambda: os.kill(os.getpid(), signal.SIGINT)], ids=["raised", "ctrl-c"]
)
@pytest.mark.parametrize("method", simulation.METHODS)
def test_an_interrupted_run_keeps_its_records(threads, act, method, tmp_path):
    threads(1)
    long = {"step": 1e-4, "tau_end": 50.0, "points": 2000, "tolerance": 1e-8, "snapshots": (0, 1e-3, 40)}
    with pytest.raises(KeyboardInterrupt) as stopped:
        simulate(seeds=(3, 4), method=method, activation=Bomb(400, act), path=tmp_path / "runs.nc", **long)
    kept = stopped.value.records
    assert kept.seed.values.tolist()[0] == 3
    assert 10 < kept.sizes["step"] < 2000
    assert np.isfinite(kept.cost.isel(run=0)).all()
    assert np.isfinite(kept.tau).all()
    assert kept.snapshot.values[0] == 0
    assert kept.snapshot.max() < 1
    np.testing.assert_allclose(kept.E.sel(snapshot=0)[0], start(3))
    assert os.listdir(tmp_path) == []
    assert torch.get_num_threads() == 1


def test_finished_runs_survive_an_interrupt(threads, tmp_path):
    threads(1)
    path = tmp_path / "runs.nc"
    counting = Bomb(10**9, interrupt)
    whole = simulate(seeds=(0,), activation=counting)
    one_run = 10**9 - counting.left
    with pytest.raises(KeyboardInterrupt) as stopped:
        simulate(seeds=(0, 1), activation=Bomb(one_run + 40, interrupt), path=path)
    kept = stopped.value.records
    assert kept.seed.values.tolist() == [0, 1]
    np.testing.assert_array_equal(kept.cost[0], whole.cost[0])
    assert np.isnan(kept.cost[1, -1])
    assert np.isfinite(kept.tau).all()
    assert records.load(path).seed.values.tolist() == [0]
    resumed = simulate(seeds=(0, 1), activation=Bomb(10**9, interrupt), path=path)
    np.testing.assert_array_equal(
        resumed.cost, simulate(seeds=(0, 1), activation=Bomb(10**9, interrupt)).cost
    )


def test_the_shorter_run_does_not_cut_the_times(threads):
    """An unfinished first run beside a finished second one: every time is still there."""
    threads(2)
    whole = simulate(seeds=(0, 1))
    settings = simulation._plan(
        [TASK], None, width=24, activation="relu", init_std=None, method="euler", step=0.01, tau_end=1.0, lam=0.0,
        tolerance=1e-3, points=12, snapshots=(),
    )  # fmt: skip
    short, full = whole.isel(run=0, step=slice(4)), whole.isel(run=1)
    drop = ["seed", "run"]
    joined = recording.joined(
        {0: short.drop_vars(drop), 1: full.drop_vars(drop)}, recording.described(TASK, settings)
    )
    np.testing.assert_array_equal(joined.tau, whole.tau)
    assert np.isnan(joined.cost[0, 4:]).all()


@pytest.mark.parametrize("method", simulation.METHODS)
def test_duplicate_inputs_stop_with_a_reason(method):
    twice = tasks.from_tensors(
        torch.cat([TASK.X_train, TASK.X_train[:1]]),
        torch.cat([TASK.Y_train, TASK.Y_train[:1]]),
        TASK.X_test,
        TASK.Y_test,
    )
    with pytest.raises(errors.SingularGramError, match="numerically singular") as stopped:
        simulate(twice, method=method)
    assert isinstance(stopped.value.records, xr.Dataset)
    assert np.isfinite(simulate(twice, method=method, lam=0.1).cost).all()


def test_too_large_a_step_stops_with_a_reason():
    with pytest.raises(
        errors.DivergedError, match=r"step = 1: .*smaller step or method=\"adaptive\""
    ) as stopped:
        simulate(activation="softplus", step=1.0, tau_end=50)
    kept = stopped.value.records
    assert kept.attrs["step"] == 1.0
    assert 1 <= kept.sizes["step"] < 12
    assert np.isfinite(kept.norm2_E.isel(run=0)).any()


BAD = [
    ({"seeds": ()}, r"seeds = \[\]: must be one or more different integers"),
    ({"seeds": (1, 2, 1)}, r"seeds = \[1, 2, 1\]: must be one or more different"),
    ({"seeds": (-1,)}, "seeds = -1: must be an integer from 0"),
    ({"seeds": (0.5,)}, "seeds = 0.5: must be an integer"),
    ({"seeds": (2**63,)}, "seeds = 9223372036854775808: must be"),
    ({"seeds": 5}, "seeds = 5: must be a sequence"),
    ({"seeds": "012"}, "seeds = '012': must be a sequence"),
    ({"task": 5}, "task = 5: must be a sequence"),
    ({"task": [1, 2, 3]}, "task = 1: must be a Task"),
    ({"task": [TASK]}, "numbers of tasks and seeds must agree: task has 1, seeds has 3"),
    ({"task": [TASK, TASK, tasks.modular(7)]}, "shapes of X_train must agree"),
    ({"task": dataclasses.replace(TASK, X_test=TASK.X_test / 0)}, "X_test holds NaN"),
    ({"task": dataclasses.replace(TASK, Y_train=TASK.Y_train.float())}, "dtypes must agree"),
    ({"task": dataclasses.replace(TASK, X_train=TASK.X_train.long())}, "X_train has dtype torch.int64"),
    ({"width": 9}, "width = 9: must be greater than the number of training samples, 9"),
    ({"width": 24.0}, "width = 24.0: must be an integer"),
    ({"activation": "sigmoid"}, "activation = 'sigmoid': must be one of 'relu'"),
    ({"activation": torch.sum}, "activation = .*elementwise"),
    ({"init_std": 0}, "init_std = 0: must be"),
    ({"method": "rk4"}, "method = 'rk4': must be one of 'euler', 'adaptive'"),
    ({"step": 0}, r"step = 0: must be a finite number in \(0, 1\]"),
    ({"step": 1.5}, r"step = 1.5: must be a finite number in \(0, 1\]"),
    ({"tau_end": 0.005}, r"tau_end = 0.005: must be a finite number in \[0.01, inf\)"),
    ({"tau_end": math.inf}, "tau_end = inf: must be a finite number"),
    ({"lam": -1}, r"lam = -1: must be a finite number in \[0, inf\)"),
    ({"tolerance": 0}, "tolerance = 0: must be"),
    ({"tolerance": 1}, "tolerance = 1: must be"),
    ({"points": 1}, "points = 1: must be an integer of at least 2"),
    ({"points": 2.5}, "points = 2.5: must be an integer"),
    ({"snapshots": (2.0,)}, r"snapshots = 2.0: must be a finite number in \[0, 1\]"),
    (
        {"start": torch.ones(3, 24, dtype=torch.float64)},
        r"start has shape \(3, 24\): must be \(5, 24\) or \(3, 5, 24\)",
    ),
    ({"start": torch.ones(5, 24)}, "dtypes must agree: X_train has torch.float64, start has torch.float32"),
    ({"start": start(0), "init_std": 1.0}, "without init_std"),
    ({"lam": "0.1"}, "lam = '0.1': .*without quotes, lam = 0.1"),
    ({"snapshots": 0.5}, "snapshots = 0.5: must be a sequence"),
]


@pytest.mark.parametrize(("changed", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments_stop_before_any_work(computed, changed, message):
    with pytest.raises(ValueError, match=message):
        simulate(**changed)
    assert computed == []
