"""What the training scripts share: data, losses, metrics, models on disk, the books of a run."""
