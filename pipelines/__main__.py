"""`python -m pipelines`: svilm-pipelines, for a Python whose scripts are not on the path."""

import sys

from pipelines.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
