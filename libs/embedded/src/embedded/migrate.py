"""`python -m embedded.migrate`: the `migrate` of several services, one after the other in one process.

Reads a JSON list of [service, environment] from standard input. What takes long is importing; together they
import once, for half the work of four processes.
"""

import json
import os
import runpy
import sys


def main() -> None:
    for service, environment in json.load(sys.stdin):
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [service, "migrate"]
        runpy.run_module(service, run_name="__main__")


if __name__ == "__main__":
    main()
