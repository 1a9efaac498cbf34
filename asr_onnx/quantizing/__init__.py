"""Integers in the place of weights and activations, as engines read them from Q/DQ pairs."""
