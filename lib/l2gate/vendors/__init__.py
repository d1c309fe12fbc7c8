# SPDX-License-Identifier: MIT
"""The vendors' virtualization, a class each: nothing else tells VMX from SVM."""
