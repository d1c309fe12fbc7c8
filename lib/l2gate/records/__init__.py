# SPDX-License-Identifier: MIT
"""What crosses the rooms of a job: how host and kernel are told, and the events of a timeline."""
