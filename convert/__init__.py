"""Checkpoint conversion, a program of its own: `python -m convert SOURCE TARGET` from a checkout's root."""
