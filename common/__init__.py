"""What the training scripts share: data, losses, metrics, models on disk, the books of a run."""

# Imported while a process group exists, it would take that into the defaults of its functions and
# keep it alive: threads of gloo would then want Python when that has ended, and abort the process.
import torch.distributed.nn  # noqa: F401
