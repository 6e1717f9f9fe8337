"""Edges of each picture, and one sheet with all pictures above their edges."""

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

import dmlpipe as dml

dag = dml.DAG("montage")


def png(image: Image.Image) -> bytes:
    data = BytesIO()
    image.save(data, "png")
    return data.getvalue()


@dag.pipeline(dml.files("images", "/{name}.png"))  # a datum a picture
def edges(images: bytes, name: str) -> dml.Files:
    grey = Image.open(BytesIO(images)).convert("L")
    return {f"{name}.png": png(ImageOps.invert(grey.filter(ImageFilter.FIND_EDGES)))}


@dag.pipeline(dml.cross(dml.files("images"), dml.files("edges")))  # all of both are one
def sheet(images: Path, edges: Path, *, columns: int = 4) -> dml.Files:
    pictures = sorted(images.glob("*.png"))
    width, height = Image.open(pictures[0]).size
    rows = -(-len(pictures) // columns)
    made = Image.new("RGB", (columns * width, rows * 2 * height), "white")
    for place, path in enumerate(pictures):
        x, y = place % columns * width, place // columns * 2 * height
        made.paste(Image.open(path), (x, y))
        made.paste(Image.open(edges / path.name).convert("RGB"), (x, y + height))
    return {"sheet.png": png(made)}
