"""Many repairs of one model: the grid, the work, what is kept, the results."""
