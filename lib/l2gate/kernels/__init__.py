# SPDX-License-Identifier: MIT
"""The kernel under test: from a spec to vmlinuz and modules."""
