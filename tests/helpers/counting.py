"""Work for the processes of a benchmark; of the standard library alone, so that they begin soon."""


def count(pipe, variant):
    """Sends back its name and what it was told, until that is 0; dies of what is less."""
    while steps := pipe.recv():
        if steps < 0:
            raise SystemExit
        pipe.send((variant, steps))
