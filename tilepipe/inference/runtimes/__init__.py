"""Runtimes: programs that compute a network of torch, one file each, all behind one protocol (`base.Runtime`)."""
