"""The rows of the README's table, one JSON each: `record.py` makes them, `table.py` prints them."""
