"""Fixtures shared by all tests: real PostgreSQL, Kafka and S3, started on first use and shared by the run."""

from hypothesis import settings

pytest_plugins = ["embedded.fixtures"]

settings.register_profile("busy machine", deadline=None)  # no test is wrong because it is slow
settings.load_profile("busy machine")
