"""``python -m devicesim`` and the ``devicesim`` command."""

from devicesim.cli.main import main

if __name__ == "__main__":
    main()
