"""What a network predicts on test videos, and the metrics of it."""
