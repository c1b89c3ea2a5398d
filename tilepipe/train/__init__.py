"""Training: from images with labels to a model directory.

config    TrainConfig: everything that decides a run, from YAML
data      Scene: image and labels at the training resolution, read by box
sampling  a survey of the labels, and the crops drawn from it
augment   random changes of crops, as functions of tensors
losses    cross-entropy, Dice, focal, Lovasz, boundary
state     weights, their average, optimiser; checkpoints that continue bit for bit
score     the finished model on images that it was not trained on
baseline  the best threshold on the same images
loop      fit: the steps above in order
"""
