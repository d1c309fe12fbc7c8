# SPDX-License-Identifier: MIT
"""What runs in L1: L1 itself over SSH, and L2 inside it."""
