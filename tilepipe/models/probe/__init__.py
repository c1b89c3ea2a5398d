"""Probe: what tiling does to a model is measured before anything is run.

    result             Probe: the values and their JSON; it imports no torch, so that a plan can hold a probe
    subject            the model as it is called: fp32 and fp64, fixed shape rules; the caller's model is not touched
    global_layers      which operations are global, by layer and kind
    steadiness         random, stateful and batch-dependent models
    stride_and_field   total stride from shifted inputs, reach from half planes of NaN
    probe_cache        probes kept by weights, code and versions
    procedure          the steps above in order

A model that is local with reach R and total stride S gives the same labels tile by tile as on the whole image if tiles
lie on multiples of S and have R real pixels of context per side.
"""
