"""What networks are fed: images and arrays as samples, samples as batches, labels."""
