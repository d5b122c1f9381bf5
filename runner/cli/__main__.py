"""`python -m runner.cli`: the command, where its entry point is not on the path."""

from __future__ import annotations

from runner.cli import main

if __name__ == "__main__":
    main()
