"""`python -m trainer`: svilm-train for a Python whose scripts are not on the PATH."""

import sys

from trainer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
