"""What a part of the encoder costs is measured, ranked, kept on disk, and spent where it counts."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from quantizing import quiet, short_manifest

from nemoport.artifact import ENCODER, Artifact
from nemoport.calibration.stream import CalibrationStreams, StreamParameters
from nemoport.cli import main
from nemoport.errors import ArtifactError, UsageError
from nemoport.export.build import export_checkpoint
from nemoport.export.checkpoint import read_checkpoint
from nemoport.quantize import build_variant, int4_mixed
from nemoport.quantize.graph import Weights, layer_matmuls, load_structure, load_typed
from nemoport.quantize.sensitivity import Cost, SensitivityProbe, groups, heat_map, measure, read_costs
from nemoport.speech.corpus import read_corpus


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return short_manifest(tmp_path_factory.mktemp("calibration"))


@pytest.fixture(scope="module")
def copy(random_checkpoint, tmp_path_factory):
    """A build of a model of two layers: what is measured is run once for each module of each layer, and more."""
    folder = tmp_path_factory.mktemp("sensitivity")
    export_checkpoint(read_checkpoint(str(random_checkpoint("tiny"))), folder)
    return folder


@pytest.fixture(scope="module")
def listener(build, manifest):
    parent = Artifact.open(build / "fp32")
    streams = CalibrationStreams(read_corpus(manifest, 16000), parent.spec, parent.filterbank(), StreamParameters())
    return SensitivityProbe(parent, streams, streams.plans[-1:])


def test_cost_follows_the_damage(listener, build):
    weights = Weights(load_typed(build / "fp32" / ENCODER))
    name = "layers.2.conv.pointwise_conv1.weight"
    noise = np.random.default_rng(0).standard_normal(weights[name].shape).astype(np.float32) * weights[name].std()
    costs = [listener.cost({name: weights[name] + share * noise}) for share in (0.0, 0.01, 0.1)]
    assert costs[0] == Cost(0.0, 0.0) and costs[1].noise < costs[2].noise / 20
    gain = "layers.5.norm_out.weight"
    assert listener.cost({gain: -weights[gain]}).tokens > 0.5


def test_what_was_measured_is_kept(listener, tmp_path):
    calls = []

    class Counting:
        def costs(self, changes, frames):
            calls.extend(changes)
            return [Cost(1e-3 * (len(calls) + i), 0.0) for i in range(len(changes))]

    def kept(parent):
        return measure(Counting(), {"parent": parent}, ["0.conv", "1.conv"], lambda group: {}, 3, tmp_path, quiet)

    first, again = kept("a"), kept("a")
    assert first == again and len(calls) == 2
    kept("b")
    assert len(calls) == 4
    path = next(p for p in tmp_path.iterdir() if json.loads(p.read_text())["inputs"]["parent"] == "a")
    with pytest.raises(ArtifactError, match="another parent"):
        read_costs(path, {"parent": "b"})


def test_groups_are_modules_of_layers():
    parts = ("0/conv/pointwise_conv1", "0/conv/pointwise_conv2", "1/self_attn/linear_q")
    names = [f"/layers.{part}/MatMul" for part in parts]
    assert groups(names) == {"0.conv": names[:2], "1.self_attn": names[2:]}
    with pytest.raises(ArtifactError, match="distinguished"):
        groups(["/encoder/MatMul"])
    costs = {"0.conv": Cost(1e-3, 0), "1.self_attn": Cost(1e-4, 0)}
    assert heat_map(costs).splitlines()[2:] == ["| 0 | 30.0 |  |", "| 1 |  | 40.0 |"]


@pytest.mark.parametrize(("needed", "count"), [(10.0, 0), (20.5, 1), (23.0, 3), (25.0, 5), (29.9, 10)])
@pytest.mark.parametrize("share", [1e-3, 0.5, 1.0, 1.7, 1e3])
def test_no_more_groups_than_needed(needed, count, share):
    """Whatever was expected; where only a factor was wrong it is found in few runs."""
    asked = []

    def cost_of(n):
        asked.append(n)
        return Cost(10 ** -(2.0 + n / 10), 0.0)  # 20 dB and one more for each group

    expected = share * 10 ** -(2.0 + np.arange(11) / 10)
    assert int4_mixed.fewest_promotions(expected, cost_of, needed, quiet)[0] == count
    assert len(set(asked)) == len(asked) <= (3 if share == 1 else 6) and all(0 <= n <= 10 for n in asked)
    many = np.append(np.ones(400), 0.0)  # nothing that helps: by bisection
    asked.clear()
    assert int4_mixed.fewest_promotions(many, cost_of, needed, quiet) == (count, cost_of(count)) and len(asked) < 20


@pytest.mark.parametrize("expected", [[0.1, 0.0], [1e-9, 1e-9, 0.0], [4.0, 3.0, 2.0, 1.0, 0.0]])
def test_a_goal_out_of_reach_is_refused(expected):
    with pytest.raises(UsageError, match="30.0 dB with every group"):
        int4_mixed.fewest_promotions(np.array(expected), lambda n: Cost(1e-3, 0.0), 31.0, quiet)


def test_the_noises_of_the_groups_that_are_left_are_expected_to_add_up():
    noises = {"0.conv": 4e-4, "1.conv": 3e-4, "2.conv": 2e-4, "3.conv": 1e-4}
    mix = int4_mixed.Mix(None, {}, {}, {}, None, {name: Cost(noise, 0.0) for name, noise in noises.items()})
    assert np.allclose(mix.expected(list(noises)), [1e-3, 6e-4, 3e-4, 1e-4, 0])


@pytest.mark.parametrize("variant", ["fp32", "kv-fp32"])
def test_groups_measured_together_cost_what_each_costs_alone(eou_build, manifest, variant):
    """In both cache layouts, one of which has its streams on another axis in the convolutions; rows do not mix."""
    parent = Artifact.open(eou_build / variant)
    streams = CalibrationStreams.of(read_corpus(manifest, 16000), parent, StreamParameters())
    probe = SensitivityProbe(parent, streams, streams.plans[:2])
    probe._batches = probe._batches[:20]  # of two frames each
    weights = Weights(load_typed(parent.encoder))
    members = groups([node.name for node in layer_matmuls(load_structure(parent.encoder))])
    chosen = [members[group] for group in ("0.conv", "1.self_attn", "1.feed_forward2")]
    changes = [{name: 0.1 * weights.of(name) for name in names} for names in chosen]
    together = probe.costs(changes, 10**6)
    assert len(set(together)) == 3
    for change, cost in zip(changes, together, strict=True):
        alone = probe.cost({weights.node(name).input[1]: weights.of(name) + added for name, added in change.items()})
        assert cost.noise == pytest.approx(alone.noise, rel=1e-3) and cost.tokens == alone.tokens
    assert probe.costs(changes[:1], 2)[0].noise != together[0].noise


def test_a_product_that_all_streams_share_keeps_its_weight(random_checkpoint, tmp_path):
    """That of the positions in an offline encoder, which has no batch; those beside it are measured."""
    export_checkpoint(read_checkpoint(str(random_checkpoint("tiny-tdt"))), tmp_path)
    parent = Artifact.open(tmp_path / "fp32")
    corpus = read_corpus(short_manifest(tmp_path, count=12), 16000)
    streams = CalibrationStreams.of(corpus, parent, StreamParameters())
    probe = SensitivityProbe(parent, streams, streams.plans[:2])
    weights = Weights(load_typed(parent.encoder))
    members = groups([node.name for node in layer_matmuls(load_structure(parent.encoder))])["0.self_attn"]
    (shared,) = (name for name in members if "linear_pos" in name)
    only, both = probe.costs([{shared: weights.of(shared)}, {name: weights.of(name) for name in members}], 1)
    assert only.noise < 1e-9 and both.noise > 1e-6


def test_the_graph_holds_what_was_chosen(copy, manifest, capsys, monkeypatch):
    goal = 34.0
    harder = replace(int4_mixed.PRECISION, parameters=int4_mixed.Parameters(probe_streams=1, min_snr_db=goal))
    monkeypatch.setattr(int4_mixed, "PRECISION", harder)  # than this model reaches in 4 bits
    artifact = build_variant(copy, "int4-mixed", manifest, progress=quiet)
    model = onnx.load(artifact.encoder, load_external_data=False)
    props = {p.key: p.value for p in model.metadata_props}
    report = json.loads(props[int4_mixed.REPORT])
    assert 0 < len(report["groups_in_8_bits"]) < 8 and report["snr_db"] >= goal, report
    types = {i.name: i.data_type for i in model.graph.initializer}
    eight = set()
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and types[node.input[0]] == onnx.TensorProto.INT8:
            eight |= set(groups([node.name]))
    assert eight == set(report["groups_in_8_bits"])
    large = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and np.prod(i.dims) >= 1024}
    assert "pre_encode.out.weight.half" in types and not large  # the scales of this model are small: test_descent.py
    with_zeros = {name.removesuffix(".zero") for name in types if name.endswith(".zero")}
    assert with_zeros == {name for name in types if name.endswith(".int4")} and with_zeros
    (kept,) = (copy / "sensitivity").iterdir()
    stamp = kept.stat().st_mtime_ns
    assert main(["sensitivity", "--build", str(copy), "--calibration", str(manifest)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "| layer | feed_forward1 | self_attn | conv | feed_forward2 |" and len(shown) == 4
    assert kept.stat().st_mtime_ns == stamp
