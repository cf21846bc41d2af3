"""Secrets: values granted to apps, read from this host and put nowhere but an environment."""
