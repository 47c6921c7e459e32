"""The arguments of `svilm-train sign` and `svilm-train verify`."""

import argparse
from typing import Any

from trainer.cli.commands import add_parser

_SIGN_EPILOG = """\
Writes RUN/model.sig, and changes no other file. It signs all files of the run but tensorboard/ and
profile/. No network is used. The format is that of OpenSSF Model Signing (pip install '.[sign]'),
whose own program verifies it, too. A run that is trained further must be signed again.

Keys are on an elliptic curve. Make a pair once, and keep the private key to yourself:
  openssl ecparam -name prime256v1 -genkey -noout -out private.pem
  openssl ec -in private.pem -pubout -out public.pem

example:
  svilm-train sign --run runs/first --key private.pem
"""

_VERIFY_EPILOG = """\
Refuses a run without a signature, signed with another key, or of which a signed file was changed,
removed or added. Exit status: 0 the run is as its signer had it, 1 it is not, 2 invalid command
line.

example:
  svilm-train verify --run runs/first --key public.pem
"""


def add_signing(commands: Any) -> None:
    """Add the commands `svilm-train sign` and `svilm-train verify`."""
    sign = add_parser(
        commands,
        "sign",
        "sign a run with a key of one's own",
        "Signs the files of a run.",
        _SIGN_EPILOG,
    )
    sign.set_defaults(command=_sign)
    verify = add_parser(
        commands,
        "verify",
        "check the signature of a run",
        "Checks who signed a run, and that its files are the signed ones.",
        _VERIFY_EPILOG,
    )
    verify.set_defaults(command=_verify)
    for parser, kind in ((sign, "private"), (verify, "public")):
        parser.add_argument("--run", required=True, metavar="RUN", help="a run on a disk")
        parser.add_argument("--key", required=True, metavar="FILE", help=f"{kind} key in PEM")


def _sign(arguments: argparse.Namespace) -> int:
    from trainer.runs import signing
    from trainer.runs.run_path import run_path

    print(f"sign: {signing.sign(run_path(arguments.run), arguments.key)}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from trainer.runs import signing
    from trainer.runs.run_path import run_path

    signing.verify(run_path(arguments.run), arguments.key)
    print(f"verify: {arguments.run} is signed by the owner of {arguments.key}")
    return 0
