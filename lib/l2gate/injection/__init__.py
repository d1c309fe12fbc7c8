# SPDX-License-Identifier: MIT
"""Injections: typed requests, the paths they take, the client of the helper."""
