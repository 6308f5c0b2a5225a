"""Fixtures for all tests."""

from pathlib import Path

import pytest

from tasks.sources.files import data_folder


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; the test skips where it is absent."""
    folder = data_folder()
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder}; set METALEARN_DATA")
    return folder
