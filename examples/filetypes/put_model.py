"""Commit the model that the package magika carries: `python put_model.py`."""

from pathlib import Path

import magika

import dmlpipe

models = Path(magika.__file__).parent / "models"
newest = sorted(models.glob("standard_*"))[-1]
dmlpipe.open().put("magika", newest, message=f"{newest.name} of magika {magika.__version__}")
