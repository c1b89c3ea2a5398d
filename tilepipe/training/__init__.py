"""Training: from images with labels to a model directory.

config    TrainConfig: everything that decides a run, from YAML
data      Scene: image and labels at the training resolution, read by box
sampling  a survey of the labels, and the crops drawn from it
augment   random changes of crops, as functions of tensors
losses    cross-entropy, Dice, focal, Lovasz, boundary
dataset    all scenes of a configuration, opened when first asked for
precision what the forward pass computes in
state     weights, their average, optimiser; checkpoints that continue bit for bit
snapshot  the model that training would give if it ended now
score     a model on images that it was not trained on, by the path that users take
stopping  the best validation, and when to stop
progress  what is said meanwhile
log       table, JSON lines and curves of a training
baseline  the best threshold on the same images
loop      fit: the steps above in order
"""
