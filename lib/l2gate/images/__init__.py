# SPDX-License-Identifier: MIT
"""What the levels boot from, built from recipes and cached by content."""
