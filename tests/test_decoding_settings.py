"""The decoding section of a checkpoint: whatever strategy it was saved with, the oracle decodes greedily; only the limit of
symbols and a TDT's durations count, as they do in NeMo."""

from pathlib import Path

import pytest

from nemoport.export.checkpoint import _spec, read_checkpoint
from nemoport.export.hyperparameters import malformed
from nemoport.export.one_form import UNLIMITED_SYMBOLS, in_one_form
from nemoport.export.unsupported import unsupported
from nemoport.validate import nemo
from nemoport.validate.nemo_config import nemo_config

CHECKPOINTS = Path(__file__).parent.parent / "reference" / "checkpoints"
TREE = {
    "model_path": None,
    "key_phrases_file": None,
    "key_phrase_items_list": ["a"],
    "context_score": 1.0,
    "use_triton": True,
}
CONFIDENCE = {
    "preserve_frame_confidence": True,
    "measure_cfg": {"name": "entropy", "temperature": "DEPRECATED"},
    "method_cfg": {"name": "max_prob"},
}
BEAM = {"beam_size": 4, "return_best_hypothesis": True, "ngram_lm_model": "/lost/lm.nemo", "ngram_lm_alpha": 0.3}
# sections that decode as greedily as the plain one
SECTIONS = {
    "beam": {"strategy": "beam", "beam": BEAM},
    "maes": {"strategy": "maes", "beam": {**BEAM, "maes_num_steps": 2, "maes_expansion_gamma": 2.3}},
    "alsd": {"strategy": "alsd", "beam": {**BEAM, "alsd_max_target_len": 2.0}},
    "tsd": {"strategy": "tsd", "beam": {**BEAM, "tsd_max_sym_exp": 50}},
    "malsd_batch": {"strategy": "malsd_batch", "beam": {**BEAM, "max_symbols": 5, "allow_cuda_graphs": False}},
    "maes_batch": {"strategy": "maes_batch", "beam": {**BEAM, "boosting_tree": TREE}},
    "greedy": {"strategy": "greedy"},
    "older strategy": {"strategy": "greedy_batched_infer"},
    "no strategy": {"strategy": None},
    "boosting tree": {"greedy": {"max_symbols": 10, "boosting_tree": TREE, "boosting_tree_alpha": 0.5}},
    "language model": {"greedy": {"max_symbols": 10, "ngram_lm_model": "/lost/lm.nemo", "ngram_lm_alpha": 0.5}},
    "confidence": {"confidence_cfg": CONFIDENCE, "greedy": {"max_symbols": 10, "preserve_frame_confidence": True}},
    "alignments": {
        "preserve_alignments": True,
        "compute_timestamps": True,
        "fused_batch_size": 7,
        "tdt_include_token_duration": True,
    },
    "beam is null": {"strategy": "malsd_batch", "beam": None},
    "an unknown key": {"something_new": {"a": [1]}},
    "older key": {"greedy": {"max_symbols_per_step": 10}},
    "no greedy section": {"greedy": None},
}


@pytest.fixture(scope="module", params=["streaming-en", "offline-tdt"])
def checkpoint(request):
    return read_checkpoint(str(CHECKPOINTS / f"{request.param}.nemo"))


def spec_of(config: dict):
    one = in_one_form(config)
    assert not unsupported(one) and not malformed(one)
    return _spec(one)


@pytest.mark.parametrize("name", SECTIONS)
def test_the_oracle_sets_its_own_decoding(name, checkpoint, tmp_path):
    """Spec and NeMo's config are those of the plain section."""
    from dataclasses import replace

    plain = nemo_config(checkpoint, tmp_path)
    config = {**checkpoint.config, "decoding": {**checkpoint.config["decoding"], **SECTIONS[name]}}
    assert spec_of(config) == checkpoint.spec
    assert nemo_config(replace(checkpoint, config=in_one_form(config)), tmp_path) == plain


@pytest.mark.parametrize("section", [None, ...])
def test_a_checkpoint_without_decoding(section, checkpoint):
    config = {key: value for key, value in checkpoint.config.items() if key != "decoding"}
    assert spec_of(config if section is ... else {**config, "decoding": None}) == checkpoint.spec


LIMITS = [
    {"max_symbols": 1},
    {"max_symbols": None},
    {"max_symbols": 0},
    {},
    {"max_symbols": None, "max_symbols_per_step": 4},
    {"max_symbols": 7, "max_symbols_per_step": 4},
    {"max_symbols_per_step": None},
    {"max_symbols": 1000},
]


def test_the_limit_of_symbols_is_nemos(checkpoint):
    """NeMo's own decoding, made of the section as it stands, has the limit; it has none where it takes none."""
    from nemo.collections.asr.parts.submodules.rnnt_decoding import RNNTBPEDecoding
    from omegaconf import OmegaConf

    model = nemo.restore(checkpoint)
    for greedy in LIMITS:
        section = {**checkpoint.config["decoding"], "greedy": {**greedy, "use_cuda_graph_decoder": False}}
        with nemo.quiet():
            theirs = RNNTBPEDecoding(OmegaConf.create(section), model.decoder, model.joint, model.tokenizer).decoding.max_symbols
        found = spec_of({**checkpoint.config, "decoding": section}).decoding.max_symbols_per_frame
        assert found == (UNLIMITED_SYMBOLS if theirs is None else theirs), greedy


DURATIONS = [
    ([0, 1, 2, 3, 4], [0, 1, 2, 4, 8], [0, 1, 2, 4, 8]),  # NeMo writes the loss's over those of decoding
    (None, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
    ([0, 1, 2, 3, 4], None, [0, 1, 2, 3, 4]),
]


@pytest.mark.parametrize(("decoding", "loss", "expected"), DURATIONS)
def test_durations_are_those_that_nemo_decodes_by(decoding, loss, expected):
    config = read_checkpoint(str(CHECKPOINTS / "offline-tdt.nemo")).config
    section = {**config["decoding"], "durations": decoding}
    trained = {"loss_name": "tdt", "tdt_kwargs": {"durations": loss}} if loss else {"loss_name": "default"}
    assert spec_of({**config, "decoding": section, "loss": trained}).decoding.durations == tuple(expected)
    if loss:
        from nemo.collections.asr.models import EncDecRNNTModel
        from omegaconf import OmegaConf

        theirs = EncDecRNNTModel.__new__(EncDecRNNTModel)
        object.__setattr__(theirs, "_cfg", OmegaConf.create({"loss": trained}))
        found = EncDecRNNTModel.set_decoding_type_according_to_loss(theirs, OmegaConf.create(section))
        assert list(found.durations) == expected
