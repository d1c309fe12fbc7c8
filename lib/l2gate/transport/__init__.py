# SPDX-License-Identifier: MIT
"""How levels are reached: connections, SSH, consoles, QMP, gdb; one channel for many tests."""
