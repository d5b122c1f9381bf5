"""`python -m runner.engine.programs.meter`: builds what counts memory on a CPU cheaply, once.

Says where it lies, or why there is none: then exit code 1, and the dispatch mode will count.
"""

from __future__ import annotations

import sys

from runner.engine.measure.library import BuildError, build


def main() -> int:
    try:
        said, code = f"memory on a CPU is counted by {build()}", 0
    except BuildError as error:
        said, code = str(error), 1
    sys.stdout.write(f"{said}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
