"""The options of a checkpoint's config: what NeMo takes for the same is taken for the same, and what is not known is refused."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

from nemoport.export.advice import ADVICE, UNKNOWN, advice
from nemoport.export.checkpoint import _spec, read_checkpoint
from nemoport.export.hyperparameters import malformed
from nemoport.export.kinds import KINDS
from nemoport.export.known_options import MODULES
from nemoport.export.one_form import in_one_form
from nemoport.export.unsupported import unsupported
from nemoport.frontend import LogMel, mel_filterbank

CHECKPOINTS = Path(__file__).parent.parent / "reference" / "checkpoints"


@pytest.fixture(scope="module")
def config():
    return read_checkpoint(str(CHECKPOINTS / "offline-tdt.nemo")).config


def changed(config: dict, section: str, **options) -> dict:
    """A copy of a config with options of a section changed; those that are `...` are removed."""
    found = {**config[section], **options}
    return {**config, section: {key: value for key, value in found.items() if value is not ...}}


# what a preprocessor section says in another way, or what it leaves to NeMo
FRONT_ENDS = {
    "as it is": {},
    "no pre-emphasis": {"preemph": None},
    "pre-emphasis 0": {"preemph": 0},
    "pre-emphasis left out": {"preemph": ...},
    "window in samples": {"window_size": None, "n_window_size": 400},
    "window of another length in samples": {"window_size": None, "n_window_size": 333},
    "hop in samples": {"window_stride": None, "n_window_stride": 160},
    "no samples": {"n_window_size": None, "n_window_stride": None},
    "window left out": {"window_size": ...},
    "hop left out": {"window_stride": ...},
    "n_fft left out": {"n_fft": ...},
    "n_fft null": {"n_fft": None},
    "8 kHz, n_fft null": {"n_fft": None, "sample_rate": 8000},
    "8 kHz, n_fft 512": {"sample_rate": 8000},
    "n_fft null, window of a power of two": {"n_fft": None, "window_size": 0.032},
    "highfreq at half the rate": {"highfreq": 8000},
    "highfreq 0": {"highfreq": 0},
    "highfreq null": {"highfreq": None},
    "highfreq at half of 8 kHz": {"highfreq": 4000, "sample_rate": 8000},
    "guard 1e-5": {"log_zero_guard_value": 1e-5},
    "guard eps": {"log_zero_guard_value": "eps"},
    "power 2": {"mag_power": 2},
    "no window by torch": {"stft_conv": True, "stft_exact_pad": True, "use_torchaudio": True},
    "dithered": {"dither": 0.5, "pad_to": 16, "nb_augmentation_prob": 0.5, "nb_max_freq": 4000},
}


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_the_front_end_is_nemos_of_that_section(name, config):
    """NeMo's own preprocessor, made of the section as it stands in the config, gives the features."""
    import torch
    from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor

    other = changed(config, "preprocessor", **FRONT_ENDS[name])
    section = {key: value for key, value in other["preprocessor"].items() if key != "_target_"}
    theirs = AudioToMelSpectrogramPreprocessor(**section).eval()
    theirs.featurizer.pad_to = 0
    one = in_one_form(other)
    assert not unsupported(one) and not malformed(one)
    spec = _spec(one).frontend
    bank = mel_filterbank(spec)
    np.testing.assert_allclose(theirs.featurizer.fb[0].numpy(), bank, atol=1e-6)
    rng = np.random.default_rng(0)
    samples = (rng.standard_normal(12_345) * np.linspace(0.01, 0.5, 12_345)).astype(np.float32)
    with torch.inference_mode():
        mel, length = theirs(input_signal=torch.from_numpy(samples)[None], length=torch.tensor([len(samples)]))
    ours = LogMel(spec, bank).whole(samples)
    np.testing.assert_allclose(ours, mel[0, :, : int(length)].numpy(), atol=2e-3)


@pytest.mark.parametrize("value", [None, False, "", "NA", "none", "per-feature", {}])
def test_no_normalisation_has_many_names(value):
    """Whatever is neither of NeMo's two is none to it."""
    import torch
    from nemo.collections.asr.parts.preprocessing.features import normalize_batch

    streaming = read_checkpoint(str(CHECKPOINTS / "streaming-en.nemo")).config
    one = in_one_form(changed(streaming, "preprocessor", normalize=value))
    assert not unsupported(one) and _spec(one).frontend.normalize == "NA"
    mel = torch.randn(1, 3, 9)
    if value:
        assert torch.equal(normalize_batch(mel, torch.tensor([9]), value)[0], mel)


# (section, options, the reason's beginning)
REFUSED = [
    ("preprocessor", {"lowfreq": 20}, "preprocessor.lowfreq is 20"),
    ("preprocessor", {"highfreq": 7600}, "preprocessor.highfreq is 7600"),
    ("preprocessor", {"mag_power": 1.0}, "preprocessor.mag_power is 1.0"),
    ("preprocessor", {"log_zero_guard_type": "clamp"}, "preprocessor.log_zero_guard_type is 'clamp'"),
    ("preprocessor", {"log": False}, "preprocessor.log is False"),
    ("preprocessor", {"frame_splicing": 3}, "preprocessor.frame_splicing is 3"),
    ("preprocessor", {"exact_pad": True}, "preprocessor.exact_pad is True"),
    ("preprocessor", {"pad_value": -16.6}, "preprocessor.pad_value is -16.6"),
    ("preprocessor", {"normalize": "all_features"}, "preprocessor.normalize is 'all_features'"),
    ("preprocessor", {"normalize": {"fixed_mean": [0.0], "fixed_std": [1.0]}}, "preprocessor.normalize is {'fixed_mean'"),
    ("preprocessor", {"normalize": "NA"}, "preprocessor.normalize is 'NA', not 'per_feature'"),
    ("preprocessor", {"window": "hamming"}, "preprocessor.window is 'hamming'"),
    ("preprocessor", {"mel_norm": None}, "preprocessor.mel_norm is None"),
    (
        "preprocessor",
        {"_target_": "nemo.collections.asr.modules.AudioToMFCCPreprocessor"},
        "preprocessor._target_ is AudioToMFCC",
    ),
    ("preprocessor", {"ripples": 1}, "preprocessor.ripples is 1, an unknown option"),
    ("encoder", {"self_attention_model": "rel_pos_local_attn"}, "encoder.att_context_size is [[-1, -1]], not [w, w]"),
    ("encoder", {"att_context_size": [64, 32]}, "encoder.att_context_size is [[64, 32]], not [-1, -1] or [w, w]"),
    ("encoder", {"att_context_size": [[64, 64], [32, 32]]}, "encoder.att_context_size is [[64, 64], [32, 32]], not [-1, -1]"),
    ("encoder", {"self_attention_model": "abs_pos"}, "encoder.self_attention_model is 'abs_pos'"),
    ("encoder", {"subsampling": "striding", "subsampling_factor": 4}, "encoder.subsampling is 'striding'"),
    ("encoder", {"subsampling": "vggnet"}, "encoder.subsampling is 'vggnet'"),
    ("encoder", {"subsampling_factor": 4}, "encoder.subsampling_factor is 4"),
    ("encoder", {"conv_norm_type": "group_norm4"}, "encoder.conv_norm_type is 'group_norm4'"),
    ("encoder", {"conv_context_size": [3, 5]}, "encoder.conv_context_size is [3, 5]"),
    ("encoder", {"untie_biases": False}, "encoder.untie_biases is False"),
    ("encoder", {"feat_out": 512}, "encoder.feat_out is 512"),
    ("encoder", {"global_tokens": 1}, "encoder.global_tokens is 1"),
    ("encoder", {"att_chunk_context_size": [[70], [1], [1]]}, "encoder.att_chunk_context_size is"),
    ("encoder", {"_target_": "nemo.collections.asr.modules.SqueezeformerEncoder"}, "encoder._target_ is SqueezeformerEncoder"),
    ("encoder", {"norm_after": True}, "encoder.norm_after is True, an unknown option"),
    (
        "decoder",
        {"_target_": "nemo.collections.asr.modules.StatelessTransducerDecoder"},
        "decoder._target_ is StatelessTransducer",
    ),
    ("decoder", {"normalization_mode": "layer"}, "decoder.normalization_mode is 'layer'"),
    ("decoder", {"blank_as_pad": False}, "decoder.blank_as_pad is False"),
    (
        "decoder",
        {"prednet": {"pred_hidden": 160, "pred_rnn_layers": 2, "rnn_hidden_size": 640}},
        "decoder.prednet.rnn_hidden_size",
    ),
    (
        "decoder",
        {"prednet": {"pred_hidden": 160, "pred_rnn_layers": 2, "context_size": 2}},
        "decoder.prednet.context_size is 2, an",
    ),
    ("joint", {"_target_": "nemo.collections.asr.modules.HATJoint"}, "joint._target_ is HATJoint"),
    ("joint", {"_target_": "nemo.collections.asr.modules.SampledRNNTJoint"}, "joint._target_ is SampledRNNTJoint"),
    ("joint", {"jointnet": {"joint_hidden": 160, "activation": "tanh"}}, "joint.jointnet.activation is 'tanh'"),
]


@pytest.mark.parametrize(("section", "options", "reason"), REFUSED, ids=[reason for *_, reason in REFUSED])
def test_another_option_is_refused_by_its_name(section, options, reason, config):
    problems = unsupported(in_one_form(changed(config, section, **options)))
    assert any(problem.startswith(reason) for problem in problems)
    assert len(problems) == len(options) if section != "decoder" else len(problems) == 1
    todo = advice(problems)
    assert todo and "download" not in todo


def test_local_attention_is_taken_by_its_window_unless_its_sides_differ(config):
    """NeMo 3.0.0 adds other positions than it means where they differ (RelPositionMultiHeadAttentionLongformer.forward)."""
    for sides, reasons in (([128, 128], []), ([128, 64], ["encoder.att_context_size is [[128, 64]], not [w, w]"])):
        local = changed(config, "encoder", self_attention_model="rel_pos_local_attn", att_context_size=sides)
        found = unsupported(in_one_form(local))
        assert [problem.partition(":")[0] for problem in found] == reasons


ACCEPTED = [
    ("encoder", {"conv_context_size": [4, 4], "conv_kernel_size": 9}),
    ("encoder", {"xscaling": True, "use_bias": True}),
    ("encoder", {"use_pytorch_sdpa": True, "dropout": 0.3, "sync_max_audio_length": False, "feat_out": -1}),
    ("encoder", {"some_new_option": None}),
    (
        "decoder",
        {"prednet": {"pred_hidden": 160, "pred_rnn_layers": 1, "rnn_hidden_size": -1, "t_max": 200, "forget_gate_bias": 2.0}},
    ),
    ("decoder", {"random_state_sampling": True}),
    ("joint", {"log_softmax": True, "fused_batch_size": 4, "preserve_memory": True}),
    ("preprocessor", {"pad_to": "max", "rng": None}),
]


@pytest.mark.parametrize(("section", "options"), ACCEPTED)
def test_options_without_an_effect_pass(section, options, config):
    one = in_one_form(changed(config, section, **options))
    assert not unsupported(one) and not malformed(one)


def nemo_options(name: str) -> set[str]:
    from nemo.collections.asr import modules

    return set(inspect.signature(vars(modules)[name].__init__).parameters) - {"self"}


@pytest.mark.parametrize("section", [name for name, module in MODULES.items() if module.name])
def test_every_option_of_nemo_is_in_one_table(section):
    """Of the installed NeMo: an option that a newer one brings has to be put into a table, or is refused."""
    module, name = MODULES[section], section.rpartition(".")[2]
    kinds = [kind for kind in KINDS if (f"{kind.head}.{name}" if f"{kind.head}.{name}" in MODULES else name) == section]
    ours = [*module.read.split(), *module.without_effect.split()]
    required = [{*kind.sections.get(name, {})} for kind in kinds]
    assert len(ours) == len({*ours}) and required and all(not options & {*ours} for options in required)
    assert all({*ours} | options == nemo_options(module.name) for options in required)


@pytest.mark.parametrize(("section", "name"), [("decoder.prednet", "prednet"), ("joint.jointnet", "jointnet")])
def test_every_option_of_a_network_is_known(section, name):
    from nemo.collections.asr.modules import rnnt

    parts = [rnnt.RNNTDecoder, rnnt.RNNTJoint]
    tree = [ast.parse(inspect.getsource(part)) for part in parts]
    read = {
        *(n.slice.value for t in tree for n in ast.walk(t) if isinstance(n, ast.Subscript) and _named(n.value, name)),
        *(n.args[0].value for t in tree for n in ast.walk(t) if isinstance(n, ast.Call) and _gets(n, name)),
    }
    assert read == {*MODULES[section].read.split(), *MODULES[section].without_effect.split()}


def _named(node, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _gets(call: ast.Call, name: str) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "get" and _named(call.func.value, name)


def test_advice_names_classes_that_nemo_has():
    from nemo.collections.asr import models

    for beginning in ADVICE:
        if beginning.startswith("target is ") and beginning != "target is SALM":
            assert any(name.startswith(beginning.removeprefix("target is ")) for name in vars(models)), beginning
    assert advice(["encoder.x is 1, an unknown option"] * 2) == UNKNOWN
