"""Records: saved whole or not at all, crossings against a search by hand."""

import math
import os

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from grokutils import records


@pytest.fixture
def sample():
    return xr.Dataset(
        {"loss": (("run", "step"), np.arange(6.0).reshape(2, 3))},
        coords={"tau": ("step", [0.0, 0.5, 1.0]), "seed": ("run", [4, 7])},
        attrs={"width": 8, **records.provenance()},
    )


def test_what_is_saved_comes_back(sample, tmp_path):
    path = tmp_path / "runs.nc"
    records.save(sample, path)
    back = records.load(str(path))
    assert back.identical(sample)
    assert os.listdir(tmp_path) == ["runs.nc"]
    records.save(back + 1, path)  # nothing holds the file open
    assert float(records.load(path).loss[0, 0]) == 1


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_users_own_permissions(sample, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        records.save(sample, tmp_path / "runs.nc")
    finally:
        os.umask(before)
    assert (tmp_path / "runs.nc").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(sample, tmp_path, monkeypatch, error):
    path = tmp_path / "runs.nc"
    records.save(sample, path)

    def half_written(self, target, **options):
        with open(target, "wb") as file:
            file.write(b"half a file")
        raise error

    monkeypatch.setattr(xr.Dataset, "to_netcdf", half_written)
    with pytest.raises(type(error)):
        records.save(sample + 1, path)
    assert records.load(path).identical(sample)
    assert os.listdir(tmp_path) == ["runs.nc"]


def test_a_replacement_that_fails_leaves_the_old_file(sample, tmp_path, monkeypatch):
    path = tmp_path / "runs.nc"
    records.save(sample, path)

    def refuse(source, target):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        records.save(sample + 1, path)
    assert records.load(path).identical(sample)
    assert os.listdir(tmp_path) == ["runs.nc"]


def test_left_over_scratch_files_do_no_harm(sample, tmp_path):
    (tmp_path / ".runs.nc.abc").write_bytes(b"half a file")
    records.save(sample, tmp_path / "runs.nc")
    assert records.load(tmp_path / "runs.nc").identical(sample)


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.nc").mkdir()
    for path, message in (
        (tmp_path / "runs.csv", "must end in .nc"),
        (tmp_path / "none" / "runs.nc", "the folder '.*none' does not exist"),
        (tmp_path / "file" / "runs.nc", "the folder '.*file' does not exist"),
        (tmp_path / "folder.nc", "is a folder"),
    ):
        with pytest.raises(ValueError, match=rf"path = '.*{path.name}': .*{message}"):
            records.writable(path)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that not even root can write to")
def test_a_folder_that_takes_no_files():
    with pytest.raises(ValueError, match=r"path = '/proc/self/runs.nc': .*cannot write there"):
        records.writable("/proc/self/runs.nc")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="cannot write there"):
        records.writable(tmp_path / "runs.nc")


@given(steps=st.integers(1, 10**7), points=st.integers(2, 300))
def test_log_spacing(steps, points):
    grid = records.log_spaced(steps, points)
    assert grid[0] == 0
    assert grid[-1] == steps
    assert (np.diff(grid) > 0).all()
    assert len(grid) <= min(points, steps + 1)
    gaps = np.diff(np.log1p(grid))
    rounding = 1 / (1 + grid[:-1])  # a step is whole
    assert (gaps <= np.log1p(steps) / (points - 1) + rounding).all()


def test_log_spacing_by_hand():
    assert records.log_spaced(7, 4).tolist() == [0, 1, 3, 7]
    assert records.log_spaced(3, 100).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("steps", "points", "name"), [(0, 5, "steps"), (2.5, 5, "steps"), (9, 1, "points")])
def test_bad_spacing(steps, points, name):
    with pytest.raises(ValueError, match=rf"{name} = .*integer of at least"):
        records.log_spaced(steps, points)


def table(rows, tau):
    return xr.DataArray(
        np.asarray(rows, float),
        dims=("run", "step"),
        coords={"tau": ("step", tau), "seed": ("run", range(len(rows)))},
    )


@given(
    rows=st.lists(st.lists(st.floats(-5, 5), min_size=5, max_size=5), min_size=1, max_size=4),
    threshold=st.floats(-6, 6),
)
def test_first_crossing_by_hand(rows, threshold):
    tau = [0.0, 0.1, 0.5, 2.0, 7.0]
    found = records.first_crossing(table(rows, tau), threshold)
    assert found.dims == ("run",)
    assert found.seed.values.tolist() == list(range(len(rows)))
    for row, at in zip(rows, found.values, strict=True):
        first = next((i for i, value in enumerate(row) if value >= threshold), None)
        if first is None:
            assert math.isnan(at)
        elif first == 0:
            assert at == 0
        else:
            assert tau[first - 1] <= at <= tau[first]
            line = np.interp(at, tau[first - 1 : first + 1], row[first - 1 : first + 1])
            assert line == pytest.approx(threshold, abs=1e-6)


def test_first_crossing_is_exact_on_a_straight_line():
    tau = np.linspace(0, 2, 7)
    found = records.first_crossing(table([3 * tau - 1, -tau], tau), 0.5)
    assert found.values[0] == pytest.approx(0.5)
    assert math.isnan(found.values[1])


def test_first_crossing_of_an_unfinished_run_and_other_coordinates():
    values = table([[0.0, 1.0, math.nan], [0.0, math.nan, math.nan]], [0.0, 2.0, 4.0])
    values = values.assign_coords(steps=("step", [0, 200, 400]))
    assert records.first_crossing(values, 0.5).values[0] == 1
    assert math.isnan(records.first_crossing(values, 0.5).values[1])
    assert records.first_crossing(values, 0.5, "steps").values[0] == 100
    assert records.first_crossing(values.transpose(), 0.5).values[0] == 1


def test_first_crossing_of_one_run_with_its_own_times():
    values = table([[0.0, 1.0], [0.0, 1.0]], [0.0, 1.0]).drop_vars("tau")
    values = values.assign_coords(tau=(("run", "step"), [[0.0, 1.0], [0.0, 10.0]]))
    assert records.first_crossing(values, 0.5).values.tolist() == [0.5, 5]
    assert float(records.first_crossing(values[1], 0.5)) == 5


# --- one schema, one definition of grokking ---------------------------------------------------------------------


def run(**changed):
    """A run that memorizes at step 10 and generalizes at step 150."""
    columns = {
        "train_accuracy": [0.0, 0.99, 1.0, 1.0],
        "test_accuracy": [0.0, 0.0, 0.49, 1.49 / 1.5],
        "train_loss": [2.0, 0.1, 0.01, 0.001],
        "test_loss": [2.0, 2.0, 1.5, 0.5],
    }
    columns = {name: (("run", "step"), [values]) for name, values in {**columns, **changed}.items()}
    coords = {
        "step": [0, 10, 100, 200],
        "tau": (("run", "step"), [[0.0, 0.1, 1.0, 2.0]]),
        "train_baseline": ("run", [2.0]),
        "test_baseline": ("run", [2.0]),
    }
    return xr.Dataset(columns, coords=coords, attrs={"ended": "steps"})


def test_records_of_the_schema_pass():
    assert records.check(run()) is not None
    one = run().isel(run=0, drop=True)
    assert records.check(one) is one


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (run(norm=[0.0] * 4), "record 'norm' is not in records.SCHEMA"),
        (run(test_accuracy=[0.0, 0.0, 0.0, 1.1]), r"record 'test_accuracy' leaves \[0, 1\]"),
        (run(train_loss=[-1.0, 0, 0, 0]), r"record 'train_loss' leaves \[0, inf\]"),
        (run().rename(run="seed"), "has dimensions .*: must be"),
        (run().drop_vars("tau"), "no coordinate 'tau'"),
        (run().isel(step=[1, 0, 2, 3]), "record 'tau' falls"),
        (run().drop_attrs(), "do not say in their attribute 'ended'"),
    ],
)
def test_records_outside_the_schema_are_refused(runs, message):
    with pytest.raises(ValueError, match=message):
        records.check(runs)


def test_when_a_run_memorizes_generalizes_and_groks():
    runs = run()
    assert records.memorization(runs).item() == pytest.approx(10)
    assert records.memorization(runs, "loss").item() == pytest.approx(10)
    assert records.generalization(runs).item() == pytest.approx(200, abs=1)
    assert records.generalization(runs, threshold=0.49).item() == pytest.approx(100)
    assert records.generalization(runs, "loss").item() == pytest.approx(150)
    assert records.generalization(runs, "loss", coordinate="tau").item() == pytest.approx(1.5)
    assert records.generalization(runs, "loss", 0.75).item() == pytest.approx(100)
    assert records.groks(runs, "loss").item() is True
    assert records.groks(runs, "loss", 0.76).item() is False  # below 10 times as long
    assert records.groks(runs, "loss", 0.1).item() is False  # never
    assert records.groks(runs).item() is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clock": "time"}, "clock = 'time': must be one of 'loss', 'accuracy'"),
        ({"threshold": 0}, "threshold = 0: must be"),
        ({"threshold": "0.5"}, "without quotes, threshold = 0.5"),
        ({"coordinate": "epoch"}, "coordinate = 'epoch': must be one of 'step', 'tau'"),
    ],
)
def test_clocks_that_there_are_not(arguments, message):
    with pytest.raises(ValueError, match=message):
        records.generalization(run(), **arguments)


def test_a_clock_says_what_it_misses():
    with pytest.raises(ValueError, match="clock = 'accuracy': these records have no 'test_accuracy'"):
        records.generalization(run().drop_vars("test_accuracy"))
    with pytest.raises(ValueError, match="clock = 'loss': these records have no 'train_baseline'"):
        records.memorization(run().drop_vars("train_baseline"), "loss")
