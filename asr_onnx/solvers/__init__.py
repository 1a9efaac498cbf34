"""What a layer is repaired by: a layer and a mask in, a correction out.  No network in sight."""
