"""The process of a study's step, which ends when the study is killed.

    python -m trainer.ablation.step_process PARENT ARGUMENTS…

Otherwise the step would train on, and the study's next start would find its run in use.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run svilm-train. After the death of the process PARENT, a step saves and ends."""
    parent = int(sys.argv.pop(1))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # It died before the call.
            sys.exit(1)
    runpy.run_module("trainer", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
