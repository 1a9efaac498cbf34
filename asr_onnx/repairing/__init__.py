"""One repair from its options to its verdict."""
