"""The same numbers everywhere: one thread, no screen, Hypothesis examples that repeat."""

import os
import shutil
import signal

# Where tests run in the background, Ctrl-C is ignored, by every process that they start as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(pool, "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

torch.set_num_threads(1)
settings.register_profile(
    "book",
    deadline=None,
    max_examples=25,
    derandomize=True,  # a failure seen once is seen by everybody
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("book")


QUIET = [
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    """Chromium, which resolves no name and so reaches nothing but this machine.

    For one module: while it runs its event loop is this thread's, and tests of schedulers need theirs.
    """
    program = shutil.which("chromium")
    if program is None:
        reason = "no Chromium: install Debian's package chromium to test the built site"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = [f"--{name}" for name in QUIET]
        options += [
            "--no-sandbox",
            "--disable-gpu",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]
        opened = playwright.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()


@pytest.fixture(autouse=True)
def _global_state_stays():
    """No function of the package may leave PyTorch with another dtype or thread count, or draw from its global generator."""
    before = torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state().tolist()
    yield
    assert (torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state().tolist()) == before
