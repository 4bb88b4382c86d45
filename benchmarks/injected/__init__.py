"""Faults for benchmarks/faults.py: a laboratory, and the cases by what they hit."""
