"""Long, seeded runs that try to break narrows: `python -m soak --help`."""
