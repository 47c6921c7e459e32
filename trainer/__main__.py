"""`python -m trainer`: svilm-train, for a Python whose scripts are not on the path."""

import sys

from trainer.main import main

sys.exit(main())
