"""Write the data of this example: a Zarr array of 2 x 3 chunks in `scene/ndvi`, samples in `samples/`."""

import sys
from pathlib import Path

import numpy as np
import zarr

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
rng = np.random.default_rng(0)
ndvi = zarr.create_array(str(folder / "scene" / "ndvi"), shape=(128, 192), chunks=(64, 64), dtype="float32")
ndvi[:] = rng.uniform(-0.2, 0.9, size=ndvi.shape).astype(np.float32)
(folder / "samples").mkdir()
np.savetxt(folder / "samples" / "bare.txt", rng.normal(0.1, 0.05, 200), fmt="%.4f")
np.savetxt(folder / "samples" / "green.txt", rng.normal(0.6, 0.1, 200), fmt="%.4f")
