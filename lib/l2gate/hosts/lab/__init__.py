# SPDX-License-Identifier: MIT
"""Hosts that were there before: this machine, or one over SSH."""
