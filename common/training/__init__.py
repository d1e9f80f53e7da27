"""Bookkeeping of one training run: `Run` conducts, the other files are its parts."""
