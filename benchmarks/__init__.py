"""What the README says about speed and memory, measured side by side; each script runs alone."""
