"""Training: from images with labels to a model directory.

config              TrainConfig: everything that decides a run, from YAML
scenes              Scene: image and labels at the training resolution, read by box
raster_labels       labels from rasters; polygon_labels: labels from polygons
label_checks        checks of the labels before the first step
sampling            a survey of the labels, and the crops drawn from it
augment             random changes of crops, as functions of tensors
losses              cross-entropy, Dice, focal, Lovasz, boundary
transfer            first weights from another model
state               weights, their average, optimiser; checkpoints that continue bit for bit
validation          scores on images that the model was not trained on, by the path that users take
progress            messages during a training
log                 table, JSON lines and curves of a training
threshold_baseline  the best threshold on the same images
loop                fit: the steps above in order
"""
