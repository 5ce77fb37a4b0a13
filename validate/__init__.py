"""The oracle and the gates between a build and its package."""
