"""`python -m colotride` is the command `colotride`."""

from colotride.cli.main import main

if __name__ == "__main__":
    main()
