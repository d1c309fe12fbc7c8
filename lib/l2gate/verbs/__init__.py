# SPDX-License-Identifier: MIT
"""What each word of the command line does; l2gate/cli.py parses it."""
