"""Networks on their way through the data: sessions, streams, and what a solver sees of a layer."""
