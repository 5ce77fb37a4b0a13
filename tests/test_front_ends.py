"""Which front ends a consumer computes by itself: its layout states them, field by field, and refuses every other model."""

from dataclasses import fields, replace

import pytest
from onnx_asr.preprocessors import numpy_preprocessor

from nemoport.errors import UsageError
from nemoport.package.layout import piece_problems
from nemoport.package.layouts import (
    genai,
    layouts,
    load_layout,
    onnx_asr,
    parakeet_js,
    parakeet_rs,
    sherpa_onnx,
    speech_core,
    transformers_js,
)
from nemoport.prompt import PromptSpec
from nemoport.spec import DecodingSpec, FrontendSpec, ModelSpec, OfflineSpec, StreamingSpec
from nemoport.tokens import Pieces, SpellingRule

USUAL = FrontendSpec(16000, 128, 512, 400, 160, 0.97, 2.0**-24, "per_feature")
OFFLINE = ModelSpec("offline-tdt", USUAL, DecodingSpec(4, 1, 1, 1, 10, durations=(0, 1, 2)), offline=OfflineSpec(1, 8, 1, 8))
STREAMING = ModelSpec(
    "streaming-rnnt",
    replace(USUAL, normalize="NA"),
    DecodingSpec(4, 1, 1, 1, 10),
    streaming=StreamingSpec(1, 8, 1, 70, (6,), 8, 8, 9),
)
# a model whose weights need that front end: 8 kHz telephone speech, other windows, other bands, other filters
OTHERS = {
    "sample_rate_hz": (8000, 22050, 48000),
    "n_mels": (8, 64, 81, 96, 256, 512),
    "n_fft": (256, 400, 1024),
    "win_samples": (160, 320, 399, 512),
    "hop_samples": (80, 128, 161, 200),
    "preemphasis": (0.0, 0.95, 1.0),
    "log_guard": (1e-5, 2.0**-23, 1e-10),
    "normalize": ("NA", "per_feature"),
}
# Of the sizes that parakeet-rs and speech-core have.
WIDE = replace(STREAMING, decoding=DecodingSpec(4, 2, 640, 640, 10))
PROMPTED = replace(WIDE, prompt=PromptSpec(128, {"auto": 101}), streaming=replace(STREAMING.require_streaming(), lookaheads=(3,)))
WIDE_TDT = replace(OFFLINE, decoding=DecodingSpec(4, 2, 640, 640, 10, durations=(0, 1, 2)))
OFFLINE_CTC = replace(OFFLINE, kind="offline-ctc", decoding=DecodingSpec(4))
CHECKS = {
    "onnx-asr": (onnx_asr, (OFFLINE,)),
    "sherpa-onnx": (sherpa_onnx, (OFFLINE, STREAMING)),
    "genai": (genai, (OFFLINE, STREAMING)),
    "parakeet-js": (parakeet_js, (WIDE_TDT,)),
    "parakeet-rs": (parakeet_rs, (WIDE,)),
    "speech-core": (speech_core, (PROMPTED,)),
    "transformers-js": (transformers_js, (OFFLINE_CTC,)),
}
CASES = [(name, spec, field) for name, (_, specs) in CHECKS.items() for spec in specs for field in OTHERS]


def with_field(spec: ModelSpec, field: str, value) -> ModelSpec:
    return replace(spec, frontend=replace(spec.frontend, **{field: value}))


def test_each_layout_that_has_its_own_front_end_is_held():
    own = {name for name in layouts() if load_layout(name).front_ends}
    assert own == CHECKS.keys()


@pytest.mark.parametrize("name, spec, field", CASES)
def test_every_field_is_stated_and_others_are_refused(name, spec, field):
    layout, computed = CHECKS[name][0], load_layout(name).front_ends(spec)
    assert set(computed) == set(OTHERS) == {f.name for f in fields(FrontendSpec)}
    for value in computed[field]:
        layout._check(with_field(spec, field, value), ["fp32"])
    refused = [value for value in OTHERS[field] if value not in computed[field]]
    assert refused or (name, field) == ("sherpa-onnx", "n_mels")
    for value in refused:
        with pytest.raises(UsageError, match=f"front end with {field} ") as caught:
            layout._check(with_field(spec, field, value), ["fp32"])
        assert str(value) in caught.value.found and "layout native" in caught.value.todo


@pytest.mark.parametrize("bands", [80, 128])
def test_onnx_asrs_is_that_of_the_installed_package(bands):
    theirs = numpy_preprocessor.NemoPreprocessorNumpy(f"nemo{bands}")
    facts = {
        "n_fft": theirs._n_fft,
        "win_samples": theirs._win_length,
        "hop_samples": theirs._hop_length,
        "preemphasis": theirs._preemph,
        "log_guard": theirs._log_zero_guard_value,
    }
    assert all(onnx_asr.FRONT_ENDS[name] == (value,) for name, value in facts.items())
    assert theirs._melscale_fbanks.shape == (257, bands)


def test_onnx_asr_has_no_other_bands():
    from importlib.resources import files

    names = {path.name for path in (files("onnx_asr.preprocessors") / "data").iterdir() if path.name.startswith("nemo")}
    assert {int(name.removeprefix("nemo")[:3].rstrip("._")) for name in names} == set(onnx_asr.FRONT_ENDS["n_mels"])


PIECES = ["<unk>", "▁a", "b", "▁", "<en-US>", "é"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
VOCABULARIES = {
    "usual": (PIECES, ""),
    "a space inside": ([*PIECES, "a b"], "pieces with a space: 'a b'"),
    "a no-break space": ([*PIECES, "a\u00a0b"], ""),
    "a blank of its own": ([*PIECES, "<blk>"], "pieces named <blk>"),
    "bytes behind the unknown": (
        ["<unk>", *BYTES, *PIECES[1:]],
        "pieces of single bytes, which it prints as they stand",
    ),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_vocabulary_that_the_consumer_cannot_spell_is_refused(name):
    pieces, problem = VOCABULARIES[name]
    for spaces_inside in (True, False):
        found = piece_problems(Pieces(pieces, SpellingRule()), onnx_asr.BLANK, spaces_inside=spaces_inside)
        assert found == [] if not problem else found[0].startswith(problem) and len(found) == 1
    for layout in (onnx_asr, sherpa_onnx) if problem else ():
        with pytest.raises(UsageError, match=problem[:12]):
            layout._check(OFFLINE, ["fp32"], found)


def test_a_symbol_that_looks_like_a_byte_is_none():
    assert piece_problems(Pieces(BYTES, SpellingRule()), "<blk>", spaces_inside=True)
    assert not piece_problems(Pieces(BYTES, SpellingRule(plain=tuple(range(256)))), "<blk>", spaces_inside=True)


@pytest.mark.parametrize("piece", ["\u2581\u2581", "a\u2581b"])
def test_words_that_begin_within_a_piece(piece):
    """onnx-asr makes a space of each mark, sherpa-onnx of a leading one alone."""
    assert not piece_problems(Pieces([piece], SpellingRule()), "<blk>", spaces_inside=True)
    assert "inside" in piece_problems(Pieces([piece], SpellingRule()), "<blk>", spaces_inside=False)[0]


@pytest.mark.parametrize(("layout", "inside"), [("onnx_asr", True), ("sherpa_onnx", False)])
def test_the_layouts_look_at_the_vocabulary(layout, inside, build, tmp_path):
    """Of the build that they would pack."""
    broken = tmp_path / "build"
    (broken / "shared").mkdir(parents=True)
    (broken / "config.json").write_bytes((build / "config.json").read_bytes())
    lines = (build / "shared" / "tokens.txt").read_text(encoding="utf-8").splitlines()
    (broken / "shared" / "tokens.txt").write_text("\n".join(["<0x0A> 0", "a\u2581b 1", *lines[2:]]) + "\n", encoding="utf-8")
    (tmp_path / "package").mkdir()
    with pytest.raises(UsageError, match="single bytes") as caught:
        {"onnx_asr": onnx_asr, "sherpa_onnx": sherpa_onnx}[layout].lay_out(broken, ["fp32"], tmp_path / "package")
    assert ("inside" in caught.value.found) == (not inside)
