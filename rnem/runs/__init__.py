"""Runs: every setting by name, finished runs in their folders, and what each was made with."""
