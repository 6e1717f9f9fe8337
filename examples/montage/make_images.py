"""Draw the data of this example into `images/`: six pictures of shapes, and one more into `late/`."""

import random
from pathlib import Path

from PIL import Image, ImageDraw

random.seed(1)
for number in range(7):
    folder = Path("late" if number == 6 else "images")
    folder.mkdir(exist_ok=True)
    image = Image.new("RGB", (160, 120), (240, 236, 224))
    draw = ImageDraw.Draw(image)
    for _ in range(4 + number):
        x, y, size = random.randrange(140), random.randrange(100), random.randrange(15, 60)
        colour = tuple(random.randrange(40, 220) for _ in range(3))
        shape = random.choice((draw.ellipse, draw.rectangle))
        shape((x, y, x + size, y + size), fill=colour)
    image.save(folder / f"shapes{number}.png")
