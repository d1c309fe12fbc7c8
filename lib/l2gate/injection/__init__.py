"""Injections: typed requests, the paths they take, the client of the helper."""
