"""One suite a stage: `python -m bench embed select train`, or `nox -s bench`. See bench/README.md."""
