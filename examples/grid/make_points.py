"""Write the data of this example: points of two classes, two noisy half circles, in `training/points.csv`."""

import math
import random
from pathlib import Path

random.seed(0)
lines = []
for number in range(240):
    angle, upper = math.pi * random.random(), number % 2
    x, y = math.cos(angle), math.sin(angle)
    x, y = (x, y) if upper else (1 - x, 0.5 - y)
    lines.append(f"{x + random.gauss(0, 0.2):.4f},{y + random.gauss(0, 0.2):.4f},{upper}")
folder = Path("training")
folder.mkdir(exist_ok=True)
(folder / "points.csv").write_text("\n".join(lines) + "\n")
