"""Probe: what tiling does to a model, measured before anything is run.

    result             Probe: the values, JSON round trip; no torch, so that a plan can hold them
    subject            the model as it is called: fp32 and fp64, fixed shape rules, nothing of the caller's is touched
    global_layers      which operations are global, by layer and kind
    steadiness         random, stateful and batch-dependent models
    stride_and_field   total stride by shifted inputs, reach by half planes of NaN
    probe_cache        probes by weights, code and versions
    procedure          the steps above in order

A model that is local with reach R and total stride S gives the same labels tile by tile as on the whole image when
tiles lie on multiples of S and have R real pixels of context per side.
"""
