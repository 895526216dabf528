"""`python -m cleanctl` is `cleanctl`."""

from cleanctl.cli import main

main()
