"""Fixtures shared by all tests: real PostgreSQL, Kafka and S3, started on first use and shared by the run."""

pytest_plugins = ["embedded.fixtures"]
