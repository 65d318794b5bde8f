"""`python -m slm`: the command `slm`, with the code of the current folder."""

from slm.cli.app import main

if __name__ == "__main__":
    main()
