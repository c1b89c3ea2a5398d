"""Segment an image with tilepipe from the Processing toolbox of QGIS (3.22 or later).

`tilepipe qgis install` copies this file into a profile of QGIS. It runs in the Python of QGIS, which lacks the packages
of tilepipe, so it starts tilepipe as a program of its own, without a shell.
"""

from __future__ import annotations

import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterExtent,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsSettings,
)

COMMAND = ["tilepipe"]
"""Words that start tilepipe; `tilepipe qgis install` writes those of the tilepipe that it belongs to."""
SETTING = "tilepipe/executable"
"""Setting of QGIS that names another tilepipe program."""
OTHERS = ("PYTHON", "GDAL_", "PROJ_", "QT_", "LD_LIBRARY_PATH", "DYLD_", "CONDA_", "VIRTUAL_ENV")
"""Beginnings of environment variables that QGIS sets for its own libraries and that would break those of tilepipe."""
PATIENCE = 30
"""Seconds that a cancelled run has to write down what it has, before it is ended."""
POLL = 0.2
"""Seconds between two looks at the Cancel button."""
STOPPED = (130, 143)
"""Exit codes of a run that was stopped and can go on."""
ON_MICROSOFT = sys.platform == "win32"


class SegmentWithTilepipe(QgsProcessingAlgorithm):
    """The tool in the toolbox."""

    INPUT, MODEL, EXTENT, POLYGONS, MIN_AREA = "INPUT", "MODEL", "EXTENT", "POLYGONS", "MIN_AREA"
    MEMORY, OPTIONS, PROGRAM, OUTPUT, OUTPUT_POLYGONS = "MEMORY", "OPTIONS", "PROGRAM", "OUTPUT", "OUTPUT_POLYGONS"

    def createInstance(self):
        return SegmentWithTilepipe()

    def name(self):
        return "tilepipe_segment"

    def displayName(self):
        return "Segment an image"

    def group(self):
        return "tilepipe"

    def groupId(self):
        return "tilepipe"

    def shortHelpString(self):
        return (
            "Labels each pixel of an image with a neural network. The image may be larger than memory.\n\n"
            "Model: the name of a bundled model (buildings, forest, nuclei) or a model directory.\n"
            "Extent: only this part gets labels; the network sees what is around it all the same.\n"
            "Polygons: also writes a GeoPackage of the same name beside the labels.\n"
            "Memory: what the run may use, such as 2GiB.\n"
            "Other options: options of 'tilepipe segment', as on the command line.\n\n"
            "A run that is cancelled goes on when it is started again with the same parameters."
        )

    def initAlgorithm(self, config=None):
        advanced = QgsProcessingParameterDefinition.FlagAdvanced
        number = QgsProcessingParameterNumber
        self.addParameter(QgsProcessingParameterRasterLayer(self.INPUT, "Image"))
        self.addParameter(QgsProcessingParameterString(self.MODEL, "Model", defaultValue="buildings"))
        self.addParameter(QgsProcessingParameterExtent(self.EXTENT, "Extent", optional=True))
        self.addParameter(QgsProcessingParameterBoolean(self.POLYGONS, "Polygons too", defaultValue=True))
        self.addParameter(
            number(self.MIN_AREA, "Least area of polygons (m2)", number.Double, optional=True, minValue=0)
        )
        for name, said in (
            (self.MEMORY, "Memory"),
            (self.OPTIONS, "Other options"),
            (self.PROGRAM, "tilepipe program (empty: the one that installed this script)"),
        ):
            parameter = QgsProcessingParameterString(name, said, optional=True)
            parameter.setFlags(parameter.flags() | advanced)
            self.addParameter(parameter)
        self.addParameter(QgsProcessingParameterRasterDestination(self.OUTPUT, "Labels"))
        self.addOutput(QgsProcessingOutputVectorLayer(self.OUTPUT_POLYGONS, "Polygons"))

    def checkParameterValues(self, parameters, context):
        layer = self.parameterAsRasterLayer(parameters, self.INPUT, context)
        if layer is not None and not os.path.exists(source_of(layer)):
            return False, f"{layer.name()} is no file on this computer; tilepipe reads files"
        output = self.parameterAsOutputLayer(parameters, self.OUTPUT, context)
        if not output.lower().endswith((".tif", ".tiff")):
            return False, "labels are written as GeoTIFF; give a name that ends in .tif"
        return super().checkParameterValues(parameters, context)

    def processAlgorithm(self, parameters, context, feedback):
        output = self.parameterAsOutputLayer(parameters, self.OUTPUT, context)
        polygons = os.path.splitext(output)[0] + ".gpkg"
        wanted = self.parameterAsBoolean(parameters, self.POLYGONS, context)
        words = self.words(parameters, context, output, wanted)
        feedback.pushCommandInfo(shlex.join(words))
        code, message = run(words, feedback)
        if feedback.isCanceled() or code in STOPPED:
            feedback.pushWarning("stopped; the same parameters go on from here")
            return {}
        if code not in (0, 3):  # 3: some tiles failed, and the rest is there
            raise QgsProcessingException(message or f"tilepipe ended with exit code {code}")
        if code == 3:
            feedback.reportError(message or "some tiles failed; their pixels are nodata")
        style_when_loaded(context, output)
        if not wanted:
            return {self.OUTPUT: output}
        details = QgsProcessingContext.LayerDetails("Polygons", context.project(), self.OUTPUT_POLYGONS)
        context.addLayerToLoadOnCompletion(polygons, details)
        style_when_loaded(context, polygons)
        return {self.OUTPUT: output, self.OUTPUT_POLYGONS: polygons}

    def words(self, parameters, context, output, polygons):
        """Return the words of the command; each is one word for tilepipe, whatever characters it has."""
        text = lambda name: self.parameterAsString(parameters, name, context).strip()  # noqa: E731
        layer = self.parameterAsRasterLayer(parameters, self.INPUT, context)
        words = [*program(text(self.PROGRAM)), "segment", source_of(layer), output, "-m", text(self.MODEL)]
        words += ["--of", "cog,vectors" if polygons else "cog", "--progress", "json", "--overwrite"]
        extent = self.parameterAsExtent(parameters, self.EXTENT, context, layer.crs())
        if parameters.get(self.EXTENT) and not extent.isNull():
            sides = (extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum())
            words += ["--bounds", " ".join(map(repr, sides))]
        if polygons and parameters.get(self.MIN_AREA) is not None:
            words += ["--min-area", repr(self.parameterAsDouble(parameters, self.MIN_AREA, context))]
        if text(self.MEMORY):
            words += ["--memory", text(self.MEMORY)]
        return words + shlex.split(text(self.OPTIONS))


def source_of(layer):
    """Return the file of a raster layer, without what QGIS adds to its name."""
    return layer.dataProvider().dataSourceUri().split("|")[0]


def program(given):
    """Return the words that start tilepipe: the parameter, the setting of QGIS, or what installed this script."""
    named = given or str(QgsSettings().value(SETTING, "") or "")
    return [named] if named else list(COMMAND)


def run(words, feedback):
    """Run tilepipe; show its progress, pass a cancellation on, and return its exit code and last message."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    # A group of its own, so that tilepipe alone is stopped, and no window of a console on Windows.
    alone = {"creationflags": 0x00000200 | 0x08000000} if ON_MICROSOFT else {"start_new_session": True}
    try:
        process = subprocess.Popen(
            words, env=clean, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **alone
        )
    except OSError as error:
        raise QgsProcessingException(
            f"{words[0]} cannot be started ({error}); run 'tilepipe qgis install' again, or name the program"
        ) from error
    lines = queue.Queue()
    reader = threading.Thread(target=read_lines, args=(process.stderr, lines), daemon=True)
    reader.start()
    message = ""
    while reader.is_alive() or not lines.empty():
        if feedback.isCanceled():
            stop(process)
        try:
            message = show(lines.get(timeout=POLL), feedback) or message
        except queue.Empty:
            continue
    return process.wait(), message


def read_lines(stream, lines):
    with stream:
        for line in stream:
            lines.put(line.decode("utf-8", errors="replace").rstrip())


def stop(process):
    """Ask tilepipe to stop, which lets it keep what it has; end it if it takes too long."""
    if process.poll() is not None:
        return
    process.send_signal(signal.CTRL_BREAK_EVENT if ON_MICROSOFT else signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        if ON_MICROSOFT:
            process.kill()
        else:  # with the processes that it started
            os.killpg(process.pid, signal.SIGKILL)


def show(line, feedback):
    """Show one line of tilepipe; return it if it is a message and no progress."""
    try:
        event = json.loads(line)
        stage, done, total = event["stage"], event["done"], event["total"]
    except (ValueError, KeyError, TypeError):
        if line:
            feedback.pushInfo(line)
        return line
    if stage == "predict" and total:
        feedback.setProgress(100 * done / total)
    if event.get("message") and stage != "done":
        feedback.pushInfo(f"{stage}: {event['message']}")
    return ""


class WithItsStyle(QgsProcessingLayerPostProcessorInterface):
    """Gives a loaded layer the style that lies beside it or in it; Processing itself does not look for one."""

    def postProcessLayer(self, layer, context, feedback):
        layer.loadDefaultStyle()
        layer.triggerRepaint()


KEPT = []
"""Objects that QGIS still needs when the tool has ended; it keeps no reference to them."""


def style_when_loaded(context, path):
    if context.willLoadLayerOnCompletion(path):
        KEPT.append(WithItsStyle())
        context.layerToLoadOnCompletionDetails(path).setPostProcessor(KEPT[-1])
