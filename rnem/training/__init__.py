"""Training one run: the loop, its optimiser, and the CUDA graph of a step."""
