"""Opens an OME-Zarr in napari and prints its layers as JSON: for a Python that has napari and napari-ome-zarr.

    python in_napari.py FOLDER PICTURE

The layers are all made visible, and PICTURE is what napari shows then.
"""

import json
import sys

import napari
import numpy as np
from PIL import Image

viewer = napari.Viewer(show=True)
viewer.open(sys.argv[1], plugin="napari-ome-zarr")
found = []
for layer in viewer.layers:
    said = {
        "kind": type(layer).__name__,
        "name": layer.name,
        "visible": bool(layer.visible),
        "levels": [list(level.shape) for level in layer.data],
        "corners": np.asarray(layer.extent.world).tolist(),
    }
    if said["kind"] == "Labels":
        known = layer.colormap.color_dict
        said["colors"] = {
            str(value): np.round(255 * np.asarray(known[value])).astype(int).tolist()
            for value in known
            if value is not None
        }
        said["classes"] = layer.features["class"].tolist()
        layer.visible = True
        layer.opacity = 1
    else:
        said["limits"] = [float(limit) for limit in layer.contrast_limits]
    found.append(said)
viewer.reset_view()
Image.fromarray(viewer.screenshot(size=(600, 800), canvas_only=True, flash=False)).convert("RGB").save(sys.argv[2])
print("\n" + json.dumps(found))
viewer.close()
