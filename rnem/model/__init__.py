"""The network and EM: torch, and nothing else of rnem."""
