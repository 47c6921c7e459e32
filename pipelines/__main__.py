"""Entry point of `python -m pipelines`, for when the svilm-pipelines script is not on PATH."""

import sys

from pipelines.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
