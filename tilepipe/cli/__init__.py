"""This room is the command line: one file per command group; each command calls one public function.

Standard output carries data (paths, plans, JSON), standard error carries messages. The exit codes are: 0 complete, 1
bug, 2 usage, 3 finished with failed tiles or images, 4 input refused, 5 model refused, 6 disk or I/O, 7 device, 75
locked, 130 and 143 stopped. Modules here import nothing heavy at their top, so that help is instant.
"""

from tilepipe.cli.main import main

__all__ = ["main"]
