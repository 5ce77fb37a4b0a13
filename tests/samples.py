"""A config.json with every key that is required, of a streaming model, for tests that need no graphs."""

SPEC = {
    "kind": "streaming-rnnt",
    "frontend": dict(
        sample_rate_hz=16000, n_mels=128, n_fft=512, win_samples=400, hop_samples=160, preemphasis=0.97,
        log_guard=2.0**-24, normalize="NA",
    ),
    "streaming": dict(
        n_layers=6, d_model=176, n_heads=4, left_context_enc_frames=70, lookaheads=[13, 6, 1, 0], conv_cache_frames=8,
        subsampling_factor=8, pre_encode_cache_mel_frames=9,
    ),
    "decoding": dict(vocab_size=96, pred_layers=2, pred_hidden=160, joint_hidden=160, max_symbols_per_frame=10),
}  # fmt: skip
OFFLINE_SPEC = {
    **{part: SPEC[part] for part in ("frontend", "decoding")},
    "kind": "offline-rnnt",
    "offline": dict(n_layers=6, d_model=176, n_heads=4, subsampling_factor=8),
}
CHUNK = dict(latency_ms=560.0, first_window_mel_frames=49, window_mel_frames=65, new_mel_frames=56, encoder_frames=7)
CONFIG = {
    "spec": SPEC,
    "checkpoint": {"name": "m", "sha256": "0" * 64},
    "frame_seconds": 0.08,
    "encoder": {
        "cache_shapes": {}, "cache_rule": "", "kv_cache_shapes": {}, "kv_cache_rule": "", "pre_encode_cache_mel_frames": 9,
        "chunks_by_lookahead": {"6": CHUNK}, "default_lookahead": 6, "first_chunk_rule": "", "next_chunk_rule": "",
        "last_chunk_rule": "", "flush_rule": "",
    },
    "decoder": {
        "blank_id": 96, "vocab_size": 97, "first_target": 96, "state_shape": [2, 1, 160], "state_rule": "",
        "max_symbols_per_frame": 10,
    },
}  # fmt: skip
