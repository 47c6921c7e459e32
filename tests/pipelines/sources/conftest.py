from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of the data sets' original annotation files."""
    for folder in Path(__file__).parents:
        if (folder / "shared" / "data").is_dir():
            return folder / "shared" / "data"
    pytest.skip("no real annotation files: there is no ../shared/data")
