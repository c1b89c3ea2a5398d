"""A prediction against the truth, both larger than memory: figures, a table, and a page with pictures.

terms     what is asked: classes, values without a label, widths, strides
stream    evaluate(): bands of rows, everything counted in sums
result    Evaluation: the figures, as JSON and as a table
page      write_page(): one self-contained HTML file
"""

from __future__ import annotations

from tilepipe.evaluate.page import write_page
from tilepipe.evaluate.result import Evaluation
from tilepipe.evaluate.stream import Readable, evaluate
from tilepipe.evaluate.terms import Terms

__all__ = ["Evaluation", "Readable", "Terms", "evaluate", "write_page"]
