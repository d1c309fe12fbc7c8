# SPDX-License-Identifier: MIT
"""Whole jobs: one, many in turn, one on several hosts."""
