"""Speech with transcripts: manifests, data sets of the Hub, degraded conditions, long recordings."""
