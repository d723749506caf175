"""`python -m narrows` is the `narrows` command."""

from narrows.cli import main

if __name__ == "__main__":
    main()
