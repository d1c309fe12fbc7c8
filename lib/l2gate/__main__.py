# SPDX-License-Identifier: MIT
"""The command `l2gate`: an exit code never says more than is known.

Only the standard library is imported before the guard stands: a broken .venv is no broken kernel.
"""

from __future__ import annotations

import sys

from l2gate.foundation.guard import guarded


def main() -> int:
    """The exit code of `l2gate` with the words of the command line; the README lists each."""
    return guarded(_body)


def _body() -> int:
    from l2gate.cli import main as cli

    return cli(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
