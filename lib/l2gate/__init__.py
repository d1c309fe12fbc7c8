# SPDX-License-Identifier: MIT
"""l2gate: does KVM keep userspace from injecting exceptions into a running L2?"""
