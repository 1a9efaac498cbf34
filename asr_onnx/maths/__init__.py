"""Arrays in, arrays out: the formulas of the method.  No graph, no file, no runtime."""
