"""Runs the Tryton server, and ends it when whoever started it is gone.

python demo/erp_serve.py <pid of the parent> <database name>
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from trytond.cli import main as serve

_LOOK_EVERY_S = 0.5


def _end_with(parent: int) -> None:
    """Ends this process once its parent is another one than at the start: a killed parent reports it to nobody."""
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(0)


def main() -> None:
    """Serves the database that the command line names."""
    parent, database = sys.argv[1:]
    # Started from a background shell, we would inherit that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    sys.argv = ["trytond", "-d", database]  # without -d the first call fails with KeyError 'res.user'
    serve()


if __name__ == "__main__":
    main()
