"""How good a model is: its outputs against the dense model's, accuracy, size, speed, gates."""
