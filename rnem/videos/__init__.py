"""Videos: the simulators of balls and of Space Invaders, files, and the data sets by name."""
