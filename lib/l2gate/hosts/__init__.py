"""L0: the machine that runs the kernel under test."""
