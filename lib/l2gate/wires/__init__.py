"""How levels are reached: SSH, processes of this machine, and one connection for many."""
