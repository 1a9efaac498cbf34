"""ONNX models as data: read, understood, patched, cut and written.  Nothing here runs one."""
