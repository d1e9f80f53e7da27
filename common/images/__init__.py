"""Pixels in, pixels out: no options, no network, no seed, no processes."""
