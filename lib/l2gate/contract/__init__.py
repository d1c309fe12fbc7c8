# SPDX-License-Identifier: MIT
"""What a kernel must do, and what a result means."""
