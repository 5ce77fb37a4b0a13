"""The windows of a recording whose length is known. `nemoport.transcription` finds the same as it reads."""


def windows(total_s: float, window_s: float, overlap_s: float) -> list[tuple[float, float]]:
    """Returns (start, end) of each pass, in seconds; the last ends with the recording and is as long as the others."""
    if total_s <= window_s:
        return [(0.0, total_s)]
    starts = []
    at = 0.0
    while at + window_s < total_s:
        starts.append(at)
        at += window_s - overlap_s
    starts.append(total_s - window_s)
    return [(start, start + window_s) for start in starts]
