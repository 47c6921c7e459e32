from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of annotation files as their data sets publish them."""
    for folder in Path(__file__).parents:
        if (folder / "shared" / "data").is_dir():
            return folder / "shared" / "data"
    pytest.skip("no real annotation files: there is no ../shared/data")
