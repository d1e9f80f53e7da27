"""Pictures: from the name of a data set or folder to uint8 patches and benchmarks.

A process is a rank and a number of processes here; Accelerate is not known.
"""
