"""This room compares a prediction with the truth, both larger than memory; it gives figures, a table and a page."""
