"""The L1 VM on a host: command line, QMP, console."""
