# SPDX-License-Identifier: MIT
"""L0: the machine that runs the kernel under test."""
