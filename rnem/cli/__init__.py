"""The command line ``rnem``."""
