# SPDX-License-Identifier: MIT
"""Hosts that an emulator makes: Bochs for Intel, QEMU TCG for AMD."""
