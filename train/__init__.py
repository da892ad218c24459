"""The trainer: `python -m train RECIPE key=value…`, from the root of a checkout."""
