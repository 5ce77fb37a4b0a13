"""The oracle, the runtimes' sessions, and the gates between a build and its package."""
