"""The experiment behind chapter 15: every kind of run goes through, and its training names its prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from grokutils import flow, records
from grokutils.experiments import noise

SMALL = {**noise.BASE, "p": 5, "width": 24, "fraction": 0.7, "seed": 1}
KINDS = {
    "adamw": {"noise": 0.2, "lr": 5e-3, "w": 0.5},
    "l2": {"noise": 0.2, "lr": 5e-3, "w": 1e-3},
    "label": {"noise": 0.5, "lr": 1.0, "w": 5e-3},
    "after": {"batch": 4, "lr": 1.0, "w": 5e-3},
    "batch": {"batch": 4, "lr": 1.0, "w": 5e-3},
    "alone": {"noise": 0.5, "lr": 1.0, "w": 5e-3},
}


@pytest.mark.parametrize("kind", KINDS)
def test_predicts_then_trains_what_names_its_prediction(kind, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(noise, "TAU_END", dict.fromkeys(noise.TAU_END, 0.3 if kind != "l2" else 0.01))
    monkeypatch.setattr(noise, "RECORDS", 60)
    monkeypatch.setattr(noise, "LONGEST", 10.0)
    paths = {what: tmp_path / f"{what}.nc" for what in ("predict", "train")}
    listed = [{**SMALL, "kind": kind, **KINDS[kind]}]
    noise.main("predict", listed, paths)
    noise.main("train", listed, paths)
    told, ran = (records.load(path) for path in paths.values())
    assert int(told.memorized[0]) > 0
    assert int(ran.steps[0]) > int(told.memorized[0])
    assert noise.scores(told, ran).chained.all()
    assert not noise.scores(told.assign(seconds=told.seconds + 1), ran).chained.any()


def test_adams_averages_are_those_of_its_optimizer():
    case = {**SMALL, "kind": "adamw", **KINDS["adamw"]}
    step, theta, averages = noise.begun(case)
    assert step > 0
    assert averages["v"].shape == theta.shape
    assert (averages["v"] >= 0).all()
    network, task = noise.setting(case)
    expected = flow.Adam(network, task.X_train, noise=0.2, outputs=task.Y_train.numel(), epsilon=0.0)
    ratio = averages["v"].sqrt() / expected.at(theta, 0.0)
    assert 0.5 < float(ratio.median()) < 3  # the fast phase is still in it


def test_the_clock_reads_averaged_weights():
    network, task = noise.setting(SMALL)
    theta = network.init(0)
    generator = np.random.default_rng(0)
    tau = np.linspace(0, 1, 300)
    path = theta.numpy() * (1 - tau)[:, None]  # toward the output 0, whose loss is never halved
    averaged, middles = noise.smooth(network, task, path + 0.01 * generator.normal(size=path.shape), tau)
    assert np.isnan(noise.halved(averaged, middles))
    assert averaged[-1] == pytest.approx(1, abs=0.05)
    assert np.all(np.diff(middles) > 0)


def test_runs_side_by_side_are_runs_alone():
    listed = [{**SMALL, "kind": "label", **KINDS["label"], "noise_seed": k} for k in range(2)]
    rows = [noise.predicted(case) for case in listed]
    told = xr.Dataset({name: ("run", [row[name] for row in rows]) for name in rows[0]})
    both = noise.trained(listed, told)
    alone = noise.trained(listed[1:], told.isel(run=[1]))
    assert both[1]["end"] == pytest.approx(alone[0]["end"], rel=1e-6)
    assert both[0]["end"] != both[1]["end"], "each noise seed is a run of its own"


def test_stored_records_hold_every_case_and_its_chain():
    told, ran = noise.stored()
    assert told.sizes["run"] == ran.sizes["run"] == len(noise.cases())
    for i in (0, -1):
        assert {name: told[name].values[i].item() for name in told.coords} == noise.cases()[i]
    assert noise.scores(told, ran).chained.all()
    assert (told.when.values < ran.when.values).all()


@pytest.mark.parametrize("kind", ["adamw", "alone"])
def test_what_is_asked_after_all_runs_has_its_own_file(kind, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(noise, "TAU_END", dict.fromkeys(noise.TAU_END, 0.3))
    monkeypatch.setattr(noise, "RECORDS", 60)
    paths = {"after": tmp_path / "after.nc"}
    noise.main("after", [{**SMALL, "kind": kind, **KINDS[kind]}], paths)
    found = records.load(paths["after"])
    assert np.isnan(found.end.values[0]) == (kind == "adamw")


def test_euclids_metric_is_pushed_by_the_noise_only_where_it_is_asked_to_be():
    network, task = noise.setting(SMALL)
    theta, common = network.init(0), {"noise": 0.2, "outputs": task.Y_train.numel()}
    calm, pushed = (
        noise.Even(flow.Adam(network, task.X_train, push=push, **common), theta) for push in (0.0, 0.1)
    )
    inertia = pushed.at(theta, 0.0)
    assert torch.equal(inertia, calm.at(theta, 0.0))
    assert not calm.force(theta, inertia).any()
    trace = flow.LabelNoise(network, task.X_train, 0.1, decay=0.0).gradient(theta)  # tr K's own force
    assert torch.allclose(pushed.force(theta, inertia), -trace / inertia, rtol=1e-9)


def test_stored_afterthoughts_are_of_the_stored_runs():
    told, _ = noise.stored()
    after = noise.stored_after()
    assert len(after) == len(noise.asked_after()) == 18
    assert set(after.seed) <= set(told.seed.values.tolist())
