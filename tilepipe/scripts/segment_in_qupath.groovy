/* Segment the images of a project with tilepipe and import the result (QuPath 0.5 or later).
 *
 * `tilepipe qupath install` copies this file to the scripts of QuPath. Open it in the script editor and choose
 * Run > Run for project, which runs it for each image and saves what was imported. tilepipe runs as a program of its
 * own, without a shell. The same script again changes nothing, goes on where a run was stopped, and replaces the objects
 * that it imported before, and no others.
 */

import qupath.lib.common.GeneralTools
import qupath.lib.io.PathIO
import static qupath.lib.gui.scripting.QPEx.*

// What to change: the model, and options of 'tilepipe segment', each word as one text.
def MODEL = "nuclei"
def OPTIONS = ["--split", "--min-area", "10"]

// Words that start tilepipe; 'tilepipe qupath install' writes those of the tilepipe that it belongs to.
def COMMAND = ["tilepipe"]

def entry = getProjectEntry()
if (entry == null)
    throw new IllegalStateException("Open the image from a project: results are kept in its folder tilepipe")
def files = getCurrentServer().getURIs().collect { GeneralTools.toPath(it) }.findAll { it != null }
if (files.size() != 1)
    throw new IllegalStateException(entry.getImageName() + " is not one file on this computer; tilepipe reads files")

def folder = new File(buildFilePath(PROJECT_BASE_DIR, "tilepipe", entry.getID()))
folder.mkdirs()
def output = new File(folder, "objects.qupath.geojson")
def imported = new File(folder, "imported.txt")

def words = COMMAND + ["segment", files[0].toString(), output.toString(), "-m", MODEL, "--of", "qupath"]
words += ["--progress", "plain", "--overwrite"] + OPTIONS
println words.join(" ")
def builder = new ProcessBuilder(words.collect { it.toString() }).redirectErrorStream(true)
builder.environment().keySet().removeIf { it.startsWith("PYTHON") }
def process = builder.start()
process.getOutputStream().close()
try {
    process.getInputStream().eachLine("UTF-8") { line ->
        println line
        if (Thread.currentThread().isInterrupted())
            throw new InterruptedException("stopped; the same script goes on from here")
    }
} finally {
    process.destroy() // it ends a run that was stopped, which keeps what it has; a run that has ended stays as it is
}
def code = process.waitFor()
if (code != 0 && code != 3) // 3: some tiles failed, and the rest is there
    throw new IllegalStateException("tilepipe ended with exit code " + code + "; its last line above says why")

def objects = PathIO.readObjects(output.toPath())
def before = imported.exists() ? imported.readLines("UTF-8").toSet() : [] as Set
removeObjects(getAllObjects(false).findAll { it.getID().toString() in before }, true)
addObjects(objects)
imported.write(objects.collect { it.getID().toString() }.join("\n"), "UTF-8")
fireHierarchyUpdate()
println entry.getImageName() + ": " + objects.size() + " objects imported"
