# SPDX-License-Identifier: MIT
"""The bench: an L0 and its L1, opened once and handed to tests."""
