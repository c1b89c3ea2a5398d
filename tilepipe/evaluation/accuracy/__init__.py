"""A prediction against the truth, both larger than memory: figures, a table, and a page with pictures."""
