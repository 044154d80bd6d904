"""The folder in which the sweeps of these tests run."""

import pytest
from sweep import small


@pytest.fixture
def folder(tmp_path):
    """A folder with the small chapter."""
    small.chapter(tmp_path)
    return tmp_path
