# SPDX-License-Identifier: MIT
"""From evidence to what a person or a script reads."""
