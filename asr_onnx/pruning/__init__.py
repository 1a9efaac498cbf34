"""Which weights go: criteria, patterns, and the masks they choose."""
