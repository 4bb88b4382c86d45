"""R-NEM: Relational Neural Expectation Maximization, replicated (van Steenkiste et al., arXiv 1802.10353)."""

__version__ = "0.1.0"
