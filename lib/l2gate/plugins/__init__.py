# SPDX-License-Identifier: MIT
"""Where Avocado comes in: settings, the shared bench of a job, and the base of a test."""
