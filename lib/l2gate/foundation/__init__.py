# SPDX-License-Identifier: MIT
"""What everything stands on: errors, deadlines, events, processes, settings, the cache, Debian."""
