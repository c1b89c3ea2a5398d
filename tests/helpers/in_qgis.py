"""Opens files in QGIS and prints what it shows of each, as JSON: for the system's Python, which has the module `qgis`.

    python3 in_qgis.py FOLDER FILE ...

A picture of each file is written as FOLDER/<name of the file>.png, at one pixel per pixel of the size that is printed.
"""

import json
import os
import sys

os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ.setdefault("XDG_RUNTIME_DIR", "/tmp")

from qgis.core import (
    QgsApplication,
    QgsLayerTreeModel,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

SIZE = (300, 200)


def opened(path):
    """Return the layer that a user gets who drags the file into QGIS."""
    if path.endswith(".tif"):
        return QgsRasterLayer(path, "layer")
    return QgsVectorLayer(f"/vsizip/{path}" if path.endswith(".zip") else path, "layer", "ogr")


def legend(layer):
    """Return the entries below a layer's name in the panel of layers."""
    node = QgsProject.instance().layerTreeRoot().findLayer(layer.id())
    model = QgsLayerTreeModel(QgsProject.instance().layerTreeRoot())  # it owns the entries
    return [entry.data(0) for entry in model.layerLegendNodes(node)]


def picture(layer, extent, path):
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(extent)
    settings.setOutputSize(QSize(*SIZE))
    settings.setBackgroundColor(QColor("white"))
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    assert job.renderedImage().save(path)


QgsApplication.setPrefixPath("/usr", True)
application = QgsApplication([], False)
application.initQgis()
folder, found, extent = sys.argv[1], {}, None
for path in sys.argv[2:]:
    layer = opened(path)
    assert layer.isValid(), path
    QgsProject.instance().addMapLayer(layer)
    # Polygons are drawn where the raster is, which is named first.
    extent = layer.extent() if extent is None or layer.crs().isGeographic() else extent
    picture(layer, extent, os.path.join(folder, os.path.basename(path) + ".png"))
    found[os.path.basename(path)] = {
        "legend": legend(layer),
        "crs": layer.crs().authid(),
        "extent": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
    }
print(json.dumps(found))
application.exitQgis()
