"""python -m wsi_mil: the command line."""

from wsi_mil.cli import main

if __name__ == "__main__":
    main()
