"""The poster's claims as data, the rules that decide them, and the scorecard."""
