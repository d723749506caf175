"""Own kernels for CUDA devices, written in Triton. Only their device code imports triton, when it first runs."""
