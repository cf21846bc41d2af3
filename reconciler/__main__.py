"""`python -m reconciler` is `autopilot`."""

from reconciler.cli.main import main

if __name__ == "__main__":
    main()
