# SPDX-License-Identifier: MIT
"""Many kernels on many hosts: the matrix, and the mutants by which the suite proves itself."""
