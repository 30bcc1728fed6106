"""``python -m firsthop`` is the command ``firsthop``."""

from firsthop.cli import main

main()
