"""The experiment behind chapter 13: the draw, predictions before trainings, and the chain between them."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from grokutils import delay, records
from grokutils.experiments import design as experiment

ROOT = Path(__file__).resolve().parents[2]
TINY = experiment.Case(0, 0, "smooth", "gelu", 11, 48, 0.85, 1.0, 0.1, 0.4, 0.0, 1)
BENT = dataclasses.replace(TINY, number=1, activation="relu", p=5, width=30, fraction=0.8, momentum=0.5)


@pytest.fixture(scope="module")
def told():
    return records.load(experiment.PATHS["predict"])


@pytest.fixture(scope="module")
def ran():
    return records.load(experiment.PATHS["train"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("design")
    paths = {what: folder / f"{what}.nc" for what in experiment.PATHS}
    experiment.main("predict", [TINY], paths)
    experiment.main("train", [TINY], paths)
    return paths


def test_a_draw_is_the_seeds_and_has_what_was_asked_for():
    seeds, numbers = [], []
    for draw, ranges in experiment.DRAWS.items():
        cases = experiment.cases(draw)
        assert cases == experiment.cases(draw)
        counts = {stratum: sum(case.stratum == stratum for case in cases) for stratum in ranges["strata"]}
        assert counts == ranges["strata"]
        seeds += [case.seed for case in cases]
        numbers += [case.number for case in cases if draw != experiment.OTHER_SEED]
        for case in cases:
            low, high = ranges["lam"]["large" if case.p >= 23 else "small"]
            assert low <= case.lam <= high
            assert 2 * case.p * case.width >= case.pairs * case.p, "d ≥ nm"
            assert case.w * case.pairs * case.p / 2 == pytest.approx(case.lam)
    assert len(set(seeds)) == len(seeds), "no seed serves twice"
    assert len(set(numbers)) == len(numbers)


def test_predicts_then_trains_and_goes_on_where_it_stopped(made):
    first = records.load(made["predict"])
    experiment.main("predict", [TINY, BENT], made)
    again = records.load(made["predict"])
    assert again.sizes["row"] == 2
    assert again.hash[0] == first.hash[0], "made once"
    experiment.main("train", [TINY, BENT], made)
    ran = records.load(made["train"])
    assert (ran.prediction.values == again.hash.values).all()
    assert ran.sizes["row"] == 2
    scored = experiment.scores(again, ran)
    assert (scored.outcome != "").all()
    for row in scored[scored.steps > 0].itertuples():
        assert row.memorized > 0
    measured = scored["accuracy 0.5"].dropna()
    assert len(measured), "something was learned"


def test_another_prediction_than_the_one_tested_is_refused(made):
    told, ran = records.load(made["predict"]), records.load(made["train"])
    false = ran.assign(prediction=("row", np.full(ran.sizes["row"], "0" * 16)))
    with pytest.raises(ValueError, match="another prediction"):
        experiment.scores(told, false)


def test_a_hash_is_of_all_that_a_row_says(made):
    (row,) = experiment.rows_of(records.load(made["predict"]).isel(row=[0]))
    assert experiment.digest(TINY, row) == row["hash"]
    assert experiment.digest(TINY, {**row, "lam loss 0.5": row["lam loss 0.5"] * (1 + 1e-12)}) != row["hash"]
    assert experiment.digest(dataclasses.replace(TINY, seed=2), {**row, "seed": 2}) != row["hash"]


def test_what_cannot_be_predicted_is_a_row_that_says_why(tmp_path):
    wild = dataclasses.replace(BENT, share=80.0)
    (told,) = experiment.predicted(wild)
    assert told["reason"] in ("diverges", "does not memorize")
    (row,) = experiment.trained(wild, told)
    assert row["reason"] == told["reason"]
    assert row["prediction"] == told["hash"]
    assert np.isnan(row["loss 0.5"])


# The stored records


def test_stored_cases_are_those_of_the_draw(told):
    drawn = {case.number: case for case in experiment.cases()}
    for row in experiment.rows_of(told):
        case = drawn[row["number"]]
        assert all(row[name] == value for name, value in dataclasses.asdict(case).items())
        assert experiment.digest(case, row) == row["hash"]
    begun = experiment.cases(experiment.SEED)[:14]  # before the second draw was made
    listed = begun + [case for case in experiment.cases() if case not in begun]
    done = [case.number in told.number.values for case in listed]
    assert done == sorted(done, reverse=True), "none is skipped"


def test_each_training_tests_a_stored_prediction(told, ran):
    hashes = dict(zip(told.number.values.tolist(), told.hash.values.tolist(), strict=True))
    for row in experiment.rows_of(ran):
        assert row["prediction"] == hashes[row["number"]]
    assert len(set(ran.number.values.tolist())) == ran.sizes["row"]


def _versions(name: str) -> list[tuple[str, int]]:
    """Commits that changed a file of records, the oldest first, each with how many ancestors it has."""
    path = f"grokutils/data/{name}.nc"
    said = subprocess.run(
        ["git", "log", "--reverse", "--format=%H", "--", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return said.stdout.split() if said.returncode == 0 else []


def test_history_has_each_prediction_before_its_training(tmp_path, ran):
    versions = {name: _versions(f"design_{name}") for name in ("predictions", "trainings")}

    def hashes(name: str, column: str) -> list[tuple[str, set]]:
        found = []
        for commit in versions[name]:
            blob = subprocess.run(
                ["git", "show", f"{commit}:grokutils/data/design_{name}.nc"], cwd=ROOT, capture_output=True
            )
            if blob.returncode:
                continue  # deleted there
            path = tmp_path / f"{commit}.nc"
            path.write_bytes(blob.stdout)
            held = records.load(path)
            if column in held:  # else an older kind of record
                found.append((commit, set(held[column].values.tolist())))
        return found

    told, trained = hashes("predictions", "hash"), hashes("trainings", "prediction")
    if not told or not trained or told[0][0] == trained[0][0]:
        pytest.skip("the history that shows the order is not here")
    seen: set = set()
    for commit, held in trained:
        for first in {next(c for c, known in told if prediction in known) for prediction in held - seen}:
            ancestor = subprocess.run(
                ["git", "merge-base", "--is-ancestor", first, f"{commit}^"], cwd=ROOT, capture_output=True
            )
            assert ancestor.returncode == 0, f"{first} is no earlier commit than {commit}"
        seen |= held
    assert seen, "trainings are in the history"


def test_intervals_are_set_by_the_other_draw_and_the_runs_that_were_known(told, ran):
    other = experiment.others(records.load(experiment.PATHS["calibrate"]))
    runs = experiment.scores(told, ran)
    assert runs.known.sum() == 84
    known = pd.concat([other, runs[runs.known]], ignore_index=True)
    for which, spread in experiment.spreads(known).items():
        assert spread <= delay.SPREAD[which] <= 2 * spread + 0.001


# What the rules compare


def test_scores_keep_every_row_and_say_what_became_of_it(told, ran):
    runs = experiment.scores(told, ran)
    assert len(runs) == ran.sizes["row"]
    assert (runs.outcome != "").all()
    assert (runs.groks == (runs.later >= records.GROKS)).all()
    some = runs[runs.waits]
    assert np.allclose(some.of_lam, some["lam loss 0.5"] / some["loss 0.5"] - 1, equal_nan=True)
    one_more = experiment.rivals(runs, experiment.others(records.load(experiment.PATHS["calibrate"])))
    errors = one_more[runs.groks]
    squares = (errors[["constant", "calibrated"]] ** 2).groupby([runs.activation, runs.p]).sum()
    assert (squares.calibrated <= squares.constant + 1e-9).all(), "one more number to fit"
    assert (errors.norm.dropna() <= 0.02).all(), "a lower bound, but for what is not yet on Z"


def test_the_cheap_predictor_is_chosen_on_the_other_draw():
    rng = np.random.default_rng(0)
    others = experiment.others(records.load(experiment.PATHS["calibrate"]))
    made = others.assign(
        groks=True, memorized=0.0, pace=1.0, tangent=rng.uniform(0.1, 0.9, len(others)), **{"V": rng.uniform(1, 2, len(others))},
        stiffness=1.0, held_out=1.0,
    )  # fmt: skip
    made["loss 0.5"] = 3 * made.tangent**-0.5
    law = experiment.cheap(made)
    assert {name for name, _ in law.chosen.values()} == {"tangent"}
    assert np.allclose(law(made), made["loss 0.5"])


# The verdicts


@pytest.fixture
def judged(told, ran):
    """Rules about runs applied to runs that are made up: all errors as given."""
    real = experiment.scores(told, ran)
    others = experiment.others(records.load(experiment.PATHS["calibrate"]))
    theory, check = (records.load(experiment.PATHS[name]).to_dataframe() for name in ("theory", "check"))

    def judge(**columns) -> dict:
        runs = real[real.waits].sample(40, replace=True, random_state=0).reset_index(drop=True)
        runs = runs.assign(
            **{"groks": True, "kind": ["smooth", "relu"] * 20, "known": False, "failed": False, **columns}
        )
        return experiment.verdicts(runs, experiment.rivals(runs, others), theory, check)

    return judge


def test_a_rule_about_the_flow_holds_or_fails_by_its_numbers(judged):
    assert judged(of_lam=0.0005)["smooth"]["holds"] is True
    assert judged(of_lam=0.002)["smooth"]["holds"] is False, "the median is too large"
    assert judged(of_lam=0.019)["relu"]["holds"] is True
    assert judged(of_lam=[0.0] * 39 + [0.06])["relu"]["holds"] is False, "the worst is too large"
    assert judged(of_lam=0.0, failed=True)["smooth"]["holds"] is False, "failures count"
    assert judged(delay_limit=0.04)["limit"]["holds"] is True
    assert judged(delay_limit=-0.06)["limit"]["holds"] is False


def test_a_rule_about_few_runs_is_not_testable(told, ran):
    runs = experiment.scores(told, ran)
    few = runs[runs.groks].groupby("kind").head(experiment.ENOUGH - 1)
    others = experiment.others(records.load(experiment.PATHS["calibrate"]))
    theory, check = (records.load(experiment.PATHS[name]).to_dataframe() for name in ("theory", "check"))
    found = experiment.verdicts(few, experiment.rivals(few, others), theory, check)
    assert found.keys() == experiment.RULES.keys()
    for name in ("limit", "smooth", "relu", "init", "accuracy", "coverage", "rivals"):
        assert found[name]["holds"] == "untestable"
    assert found["enough"]["holds"] is False


def test_intervals_cover_as_often_as_they_hold(judged):
    every = {f"{name} covered {clock}": True for name in ("lam", "init") for clock in experiment.CLOCKS}
    assert judged(**every)["coverage"]["holds"] is True
    some = {name: [True, True, True, True, False] * 8 for name in every}
    assert judged(**some)["coverage"]["holds"] is False


def test_the_crosscheck_extrapolates_to_learning_rate_zero(told, ran):
    theory = records.load(experiment.PATHS["theory"]).to_dataframe()
    runs = experiment.scores(told, ran)
    laws = experiment.rivals(runs, experiment.others(records.load(experiment.PATHS["calibrate"])))
    made = [
        {"seed": start.seed, "lr": lr, "tau": 5 + slope * lr}
        for start in experiment.CELL
        for lr, slope in ((0.0, 0.0), (1.0, 0.8), (0.5, 0.8))
    ]
    check = pd.DataFrame(made)
    assert experiment.verdicts(runs, laws, theory, check)["crosscheck"]["holds"] is True
    off = check.assign(tau=check.tau.where(check.lr > 0, 5.2))
    assert experiment.verdicts(runs, laws, theory, off)["crosscheck"]["holds"] is False
