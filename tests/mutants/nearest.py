"""The modules that are mutated, and the tests nearest to each: pytest's arguments, the quickest first. What the tests of a row
take decides how long a mutant takes, so that tests in which NeMo runs are left out."""

from __future__ import annotations

BUILT = "tests/test_bites_results.py"
GATES = "tests/test_bites_gates.py"
CHECKS = "tests/test_bites_checks.py"
EVALUATION = "tests/test_evaluation.py"
CALIBRATION = "tests/test_calibration.py"
COLLECTED = "tests/test_bites_calibration.py"
CORPORA = "tests/test_bites_corpus.py"
DOCTOR = "tests/test_doctor.py"
FOREIGN = "tests/test_foreign.py"
FOLDERS = "tests/test_transformers_folder.py"
FRONT_ENDS = "tests/test_front_ends.py"
LAYOUTS = "tests/test_bites_layouts.py"
LAWS = "tests/test_properties.py"
RECOGNIZER = "tests/test_bites_recognizer.py"
RECIPES = "tests/test_bites_recipes.py"
REUSE = "tests/test_bites_reuse.py"
RUNTIME = "tests/test_bites_runtime.py"
SMOOTHING = "tests/test_bites_smoothing.py"
PACKAGING = "test_bites_results or test_score or packaging or readable or installed or failed_figure or not_run"
STAMPED = "test_bites_results or jiwer or runtime or provider or evaluation or other_code or all_code"
CORPUS = "test_bites_corpus or names_of_their_own or whole_files or renamed or same_name or counts_once"
TRANSCRIBED = "windows_of or test_bites_recognizer or test_trimming and not nemo"
KEPT = "test_bites_caches or keep_their_caches or packets_and_batches"
BOUNDS = "test_schemas or has_bounds or test_artifact and not processes_that_want"
PAGE = "tests/test_page.py"
DECODED = "test_bites_decode or packets_and or scores_that_are or greedy and not gets_wrong"
FRAMED = "knee_of or frames_of_any or buffer or test_frontend and not nemo"
SEARCHED = "a_beam_that or test_beam and not nemo and not of_a_model"
CUT = "test_bites_stream or full_flush or geometry or of_its_caller or packets_and"
NO_NEMO = ("-k", "not nemo and not processes_that_want")


def _gate(name: str, *words: str) -> tuple[str, ...]:
    return (CHECKS, GATES, "-k", " or ".join((name, *words, "every_figure", "of_gates_toml")))


DECISIVE: dict[str, tuple[str, ...]] = {
    "validate/limits": ("tests/test_limits.py", "tests/test_score.py", GATES, "-k", "test_limits or test_score or is_compared"),
    "validate/gate_result": (BUILT, "tests/test_score.py", REUSE, "-k", PACKAGING),
    "validate/result_store": (BUILT, "tests/test_score.py", REUSE, "-k", PACKAGING),
    "validate/stamps": (BUILT, REUSE, "-k", STAMPED),
    "validate/run": ("tests/test_bites_run.py", REUSE, "-k", "test_bites_run or one_figure"),
    "nemoport/score": (
        LAWS,
        "tests/test_score.py",
        GATES,
        "-k",
        "jiwer or scipys or test_score or interval or wer or characters",
    ),
    "nemoport/speech/corpus": (CORPORA, REUSE, "tests/test_manifest.py", "-k", CORPUS),
    "calibration/audio": (CORPORA, REUSE, "-k", "test_bites_corpus or calibrate or silent"),
    "validate/gates/__init__": (CHECKS,),
    "validate/gates/batch": _gate("batch"),
    "validate/gates/boundary": _gate("boundary"),
    "validate/gates/conditions": _gate("conditions", "characters"),
    "validate/gates/contract": _gate("contract", "files", "specs", "shapes", "languages", "interfaces"),
    "validate/gates/cost": _gate("cost", "process"),
    "validate/gates/longform": _gate("longform", "long", "stretches", "stall", "drift"),
    "validate/gates/numeric": _gate("numeric", "frames"),
    "validate/gates/structure": _gate("structure", "products", "pairs"),
    "validate/gates/tokens": _gate("tokens"),
    "validate/gates/words": _gate("words", "confidence", "furthest", "no_time"),
    "validate/gates/wer": _gate("wer", "characters", "language", "interval"),
}
NEAREST = DECISIVE | {
    "nemoport/decode": ("tests/test_bites_decode.py", "tests/test_stream.py", "tests/test_hotwords.py", LAWS, "-k", DECODED),
    "nemoport/stream": ("tests/test_bites_stream.py", LAWS, "-k", "test_bites_stream or packets or judged"),
    "nemoport/chunker": ("tests/test_stream.py", "tests/test_bites_stream.py", RUNTIME, LAWS, "-k", CUT),
    "nemoport/beam": (RUNTIME, "tests/test_beam.py", "-k", SEARCHED),
    "nemoport/beam_hypotheses": (RUNTIME, "tests/test_beam.py", "-k", SEARCHED),
    "nemoport/ctc_beam": ("tests/test_ctc_beam.py", *NO_NEMO),
    "nemoport/language_model": ("tests/test_language_model.py", *NO_NEMO),
    "nemoport/hotwords": (RUNTIME, "tests/test_hotwords.py", "-k", "test_hotwords or phrase"),
    "nemoport/long_audio": ("tests/test_long_audio.py", RUNTIME, LAWS, "-k", "test_long_audio or windows or near_in_time"),
    "nemoport/words": ("tests/test_bites_words.py", "tests/test_words.py", *NO_NEMO),
    "nemoport/confidence": ("tests/test_bites_words.py", "tests/test_words.py", *NO_NEMO),
    "nemoport/formats": ("tests/test_bites_words.py", "tests/test_words.py", *NO_NEMO),
    "nemoport/utterances": ("tests/test_utterances.py", "tests/test_events.py"),
    "nemoport/events": ("tests/test_events.py",),
    "nemoport/token_mask": ("tests/test_token_mask.py", *NO_NEMO),
    "nemoport/trimming": ("tests/test_trimming.py", *NO_NEMO),
    "nemoport/windows": ("tests/test_litert_offline.py", "-k", "shortest_window"),
    "nemoport/vad": ("tests/test_vad.py", "-k", "not offline_model and not real"),
    "validate/calibration_error": (CHECKS, GATES, "-k", "confidence or word_is_right"),
    "validate/details": (PAGE, "-k", "gate_kept or damaged or encoding"),
    "validate/differing": (PAGE, "-k", "most_different"),
    "validate/page/alignment": (PAGE, "-k", "stand_beside or characters or times_where or long_text or without_end"),
    "validate/page/changes": (PAGE, "-k", "changed_since or compared_with or one_side or earlier or no_numbers or largest"),
    "validate/page/clips": (PAGE, "-k", "audio"),
    "validate/page/costs": (PAGE, "-k", "betters or failing_figure or unbeaten"),
    "validate/page/differences": (PAGE, "-k", "leads_nowhere or bounded or earlier_version"),
    "validate/page/intervals": (PAGE, "-k", "rates"),
    "validate/page/page": (PAGE,),
    "validate/page/sources": (PAGE, "-k", "failing_figure or damaged or no_numbers or command"),
    "nemoport/tokens": ("tests/test_spelling.py",),
    "nemoport/frontend": ("tests/test_bites_decode.py", RUNTIME, LAWS, "tests/test_frontend.py", "-k", FRAMED),
    "nemoport/caches": ("tests/test_bites_caches.py", RUNTIME, LAWS, "-k", KEPT),
    "nemoport/caches_kv": ("tests/test_bites_caches.py", RUNTIME, LAWS, "-k", KEPT),
    "nemoport/recognizer": (RECOGNIZER,),
    "nemoport/transcription": (RUNTIME, RECOGNIZER, "tests/test_trimming.py", "-k", TRANSCRIBED),
    "nemoport/evaluation/item": (EVALUATION, "-k", "shard or ids or digest or manifest_keeps"),
    "nemoport/evaluation/pool": (
        EVALUATION,
        "tests/test_on_ray.py",
        "-k",
        "utterance_has or fails_alone or only_end or left_out or actors",
    ),
    "nemoport/evaluation/results": (
        EVALUATION,
        "-k",
        "same_bytes_in or killed_run_did or damaged_journal or one_process or summary",
    ),
    "nemoport/evaluation/scorers": ("tests/test_scorers.py",),
    "nemoport/evaluation/scoring": ("tests/test_scorers.py",),
    "nemoport/evaluation/sources": (EVALUATION, "tests/test_dataset.py", "-k", "manifest_keeps or folder or streamed"),
    "nemoport/evaluation/summary": (EVALUATION, "-k", "summary"),
    "nemoport/interface": (CHECKS,),
    "nemoport/artifact": ("tests/test_artifact.py", REUSE, "-k", "test_artifact and not processes_that_want or manifest"),
    "nemoport/config": ("tests/test_layouts.py", "tests/test_untrusted_package.py", "-k", "test_layouts or config_has_bounds"),
    "nemoport/schema": ("tests/test_artifact.py", "tests/test_schemas.py", "tests/test_untrusted_package.py", "-k", BOUNDS),
    "package/verify": ("tests/test_bites_verify.py",),
    "package/doctor/weights": (DOCTOR,),
    "package/doctor/probe": (DOCTOR,),
    "nemoport/foreign/ports": (FOREIGN, DOCTOR),
    "nemoport/foreign/spec": (FOREIGN, DOCTOR),
    "nemoport/foreign/adapter": (FOREIGN, DOCTOR),
    "nemoport/foreign/listing": (FOREIGN,),
    "nemoport/foreign/vocabulary": (FOREIGN, DOCTOR),
    "nemoport/array_file": ("tests/test_golden.py", "-k", "pickle or sizes or arrays_come_back"),
    "nemoport/download": ("tests/test_golden.py", "-k", "addresses or https or wanted_is_read"),
    "validate/runs": (LAWS, "-k", "judged_run"),
    "validate/flush_pair": (LAWS, "-k", "judged_run"),
    "nemoport/speech/dataset": ("tests/test_dataset.py",),
    "calibration/cache": (COLLECTED, REUSE, "-k", "test_bites_calibration or calibrated"),
    "calibration/ranges": (RECIPES, CALIBRATION, "-k", "range or histograms or percentile or collector or summary"),
    "calibration/stream": (COLLECTED, RECIPES, "-k", "test_bites_calibration or overflow or padding"),
    "quantize/blocks": (RECIPES, "tests/test_weight_only.py"),
    "quantize/descent": ("tests/test_descent.py",),
    "quantize/error_feedback": (RECIPES, "tests/test_weight_only.py", "tests/test_descent.py"),
    "quantize/row_probe": ("tests/test_sensitivity.py", "-k", "together"),
    "quantize/nbits": ("tests/test_distill.py", "-k", "runtime or halved"),
    "quantize/storage": ("tests/test_distill.py", "-k", "halved or bytes or becomes"),
    "quantize/student": ("tests/test_distill.py", "-k", "student"),
    "quantize/overflow": (SMOOTHING, RECIPES, "-k", "test_bites_smoothing or overflow"),
    "quantize/smoothing": (
        SMOOTHING,
        "tests/test_smoothing.py",
        "-k",
        "test_bites_smoothing or scales or product_error or place",
    ),
    "quantize/row_ranges": (SMOOTHING, "tests/test_int8.py", "-k", "silu or row_has_its_own"),
    "quantize/synthetic_rows": (SMOOTHING, RECIPES, "-k", "without_audio or synthetic"),
    "package/layouts/sherpa_onnx": (LAYOUTS, RECIPES, FRONT_ENDS, "-k", "sherpa_onnx or layouts or front_end or consumer"),
    "package/layouts/transformers_js": ("tests/test_js_layouts.py", FRONT_ENDS, "-k", "js or front_end"),
    "package/layouts/parakeet_js": ("tests/test_js_layouts.py", FRONT_ENDS, "-k", "js or front_end"),
    "package/transformers_js_files": ("tests/test_js_layouts.py",),
    "package/layouts/onnx_asr": (LAYOUTS, RECIPES, FRONT_ENDS, "-k", "onnx_asr or layouts or front_end or consumer"),
    "package/layouts/native": (LAYOUTS, "tests/test_layouts.py"),
    "web/server": ("tests/test_web_site.py", "-k", "served or policy or port"),
    "web/site": ("tests/test_web_site.py", "-k", "stays_until or npm or every_file or served"),
    "package/layouts/genai": ("tests/test_genai.py", FRONT_ENDS, "-k", "genai or language"),
    "package/layouts/parakeet_rs": ("tests/test_parakeet_rs.py", FRONT_ENDS, "-k", "parakeet_rs or vocabulary"),
    "package/layouts/speech_core": ("tests/test_speech_core.py", FRONT_ENDS, "-k", "speech_core"),
    "package/genai_files": ("tests/test_genai.py",),
    "package/boundary": ("tests/test_boundary.py",),
    "package/links": ("tests/test_several_layouts.py",),
    "export/containers/safetensors_file": (FOLDERS, "-k", "header or library_writes"),
    "export/containers/tokenizer_json": (FOLDERS, "-k", "pieces_have or splits_and_joins"),
    "export/containers/torch_header": ("tests/test_inspect.py", "-k", "pickle or torchs_files"),
}
TORCH = {  # those whose tests import torch, as a build does, which forks then share
    *(
        f"nemoport/{name}"
        for name in ("beam", "beam_hypotheses", "decode", "hotwords", "token_mask", "trimming", "config", "schema")
    ),
    *(f"package/layouts/{name}" for name in ("native", "onnx_asr", "sherpa_onnx", "genai", "parakeet_rs", "speech_core")),
    *(f"package/{name}" for name in ("genai_files", "links")),
    *(f"export/containers/{name}" for name in ("safetensors_file", "tokenizer_json", "torch_header")),
}
