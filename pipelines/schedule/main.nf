// One process per image: nextflow run main.nf --images 'scenes/*.tif' --model forest
params.images = 'scenes/*.tif'
params.model = 'forest'
params.output = 'labels'

process SEGMENT {
    publishDir params.output, mode: 'move'
    cpus 2
    memory '4 GB'
    errorStrategy { task.exitStatus in [130, 137, 143] ? 'retry' : 'ignore' }
    maxRetries 2

    input:
    path image

    output:
    path "${image.baseName}.labels.tif*"

    script:
    """
    tilepipe segment '${image}' '${image.baseName}.labels.tif' -m '${params.model}' --progress plain
    """
}

workflow {
    SEGMENT(Channel.fromPath(params.images))
}
