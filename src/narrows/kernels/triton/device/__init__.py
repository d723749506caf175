"""Device code: one kernel a file, as Triton compiles or interprets it."""
