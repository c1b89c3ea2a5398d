"""This room measures a label map: agreement, outlines, fragments, checkerboard, seams, coarseness.

Counts are integers that add up over blocks, so files larger than memory give the same figures.

    pair          two label maps, checked once
    confusion     IoU, Dice, accuracy
    boundary      boundary F1, Boundary IoU, trimap IoU
    components    component ratio, variation of information
    checkerboard  the spectral line and the phase share of an up-sampling stride
    seams         grid-shift flips, total variation, seam excess
    coarseness    what is lost against the ideal map at a feature stride
"""
