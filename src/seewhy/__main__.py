"""`python -m seewhy` is the command line."""

from seewhy.cli import main

if __name__ == "__main__":
    main()
