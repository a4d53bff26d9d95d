"""What Hallmark's services say to each other. Pydantic only: no I/O, no framework."""
