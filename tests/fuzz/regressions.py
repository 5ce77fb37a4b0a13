"""Inputs that once got through: ended in a traceback, did not end, wrote elsewhere, or were accepted as something else."""

from __future__ import annotations

import gzip
import json
from copy import deepcopy
from typing import Any

from fuzz import checkpoints, commands, folders, gates, graphs, sound
from fuzz.mutate import DEEP


def refused() -> dict[str, list[Any]]:
    """Name of a target -> inputs that it must refuse."""
    return {
        "yaml": [b'a: !!int ""', b"a: !!bool x", b"a: !!timestamp x", b'a: !!float ""', b"a: 1" + b":1" * 200_000],
        "archive": [_gzip_with_another_checksum(), checkpoints.archives()[1][:-4], gzip.compress(_ends_before_it_begins())],
        "config": [_config("encoder", subsampling_factor=8.0), _config("preprocessor", sample_rate=32_000)],
        "transformers": [_shard_with_a_long_name()],
        "toml": _tomls(),
        "results": [
            b"[" * DEEP,
            b"[]",
            _result(variant=None),
            _result(status="maybe"),
            _result(interval=[1]),
            _result(measured="1.5"),
        ],
        "packets": [[[[0.1], [0.1, 0.2]]]],
        "corpus": [b"[" * DEEP, _row(audio_filepath="x" * 300), _row(text="\ud800")],
        "data-set": _data_sets(),
        "hotwords": [(_pieces(), ["\ud800"], 1.5, b""), (_pieces(), ["hello"], 1e308, b"")],
        "size": ["1e999", "infG"],
        "shards": [_moved(location="x" * 300), _within_and_without(), b"\x08"],
        "structure": [_two_nodes_of_a_name(), _weight_of_another_size(), _one_input(), b"\x08"],
        "command-line": [
            (["kind", "x" * 300], {}, b""),
            (["transcribe", "p/fp32", "-", "--json", "--streams", "2"], commands.case_files(), bytes(100)),
            (["transcribe", "p/fp32", "a.wav", "--beam", str(10**30)], commands.case_files(), b""),
        ],
    }


def accepted() -> dict[str, list[Any]]:
    """Name of a target -> inputs that it must read."""
    files = {**commands.case_files(), "p/shared/tokens.txt": "".join(f"<0x1B> {i}\n" for i in range(8)).encode()}
    return {
        "transformers": [_no_list_of_normalizers()],
        "tokens": [b"<0xZZ> 0\n<0x>C> 1\n<0x 1> 2\n<0x+1> 3\n"],
        "corpus": [json.dumps({"audio_filepath": "a.wav", "text": "a\u2028b", "lang": "en-US"}, ensure_ascii=False).encode()],
        "data-set": [_data_set(text="a\u2028b")],
        "shards": [_shared_by(40)],
        "command-line": [(["transcribe", "p/fp32", "a.wav", *form], files, b"") for form in ([], ["--json"])],
    }


def _shard_with_a_long_name() -> folders.Files:
    files = deepcopy(folders.folders()[1])
    files["model.safetensors.index.json"]["weight_map"]["x"] = f"{'x' * 300}.safetensors"
    return files


def _no_list_of_normalizers() -> folders.Files:
    files = deepcopy(folders.folders()[0])
    files["tokenizer.json"]["normalizer"]["normalizers"] = 5
    return files


def _gzip_with_another_checksum() -> bytes:
    whole = checkpoints.archives()[1]
    return whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]


def _ends_before_it_begins() -> bytes:
    """A member of -2^20 bytes."""
    data = bytearray(checkpoints.archives()[2])
    data[124:136] = (-(2**20)).to_bytes(12, "big", signed=True)
    total = sum(data[:148]) + 256 + sum(data[156:512])
    data[148:156] = b"%06o\0 " % total
    return bytes(data)


def _config(section: str, **values: Any) -> dict:
    config = checkpoints.configs()[0]
    return {**config, section: {**config[section], **values}}


def _tomls() -> list[bytes]:
    chain = b"".join(b"[v%d]\nlike = 'v%d'\n" % (i, i + 1) for i in range(900)) + b"[v900]\nrequired = []\nstreams = 1\n"
    table = b"[fp32]\nrequired = %s\nstreams = %s\n"
    values = [(b"[1]", b"1"), (b"[]", b"true"), (b"[]", b"0"), (b"[]", b"-1")]
    limit = gates.tomls()[0].replace(b"1.5", b"9" * 400)
    return [b"[", b"\xff", b"a = " + b"[" * DEEP, chain, limit, b"a = " + b"9" * 5000, *(table % pair for pair in values)]


def _result(**values: Any) -> list:
    return [{**gates.lines()[0][0], **values}]


def _row(**values: Any) -> list:
    return [{**sound.corpora()[0][0], **values}]


def _data_set(language: str = "en_us", shard: str | None = None, **values: Any) -> dict:
    case = sound.data_sets()[0]
    return {**case, "rows": [{**case["rows"][0], **values}], "languages": [language], "shard": shard}


def _data_sets() -> list[dict]:
    paths = ("/etc/hostname", "/proc/self/environ", "x\0y", "\ud800", "x" * 5000)
    rows: list[dict[str, Any]] = [{"audio": {"bytes": None, "path": path}} for path in paths]
    rows += [{"audio": 1}, {"audio": {}}, {"audio": {"bytes": None, "path": 1.5}}, {"text": "\ud800"}, {"text": 5}]
    return [*(_data_set(**row) for row in rows), _data_set("../x"), _data_set("/x"), _data_set(shard="1/" + "9" * 5000)]


def _pieces() -> list[str]:
    return sound.hotwords()[0][0]


def _model() -> Any:
    import onnx

    return onnx.load_from_string(graphs.models()[0])


def _moved(**place: str) -> bytes:
    model = _model()
    for entry in model.graph.initializer[0].external_data:
        entry.value = place.get(entry.key, entry.value)
    return model.SerializeToString()


def _within_and_without() -> bytes:
    model = _model()
    model.graph.initializer[0].raw_data = bytes(graphs.DATA_BYTES)
    return model.SerializeToString()


def _shared_by(count: int) -> bytes:
    model = _model()
    for number in range(count):
        model.graph.initializer.append(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"copy{number}"
    return model.SerializeToString()


def _two_nodes_of_a_name() -> bytes:
    model = _model()
    model.graph.node.add(name=model.graph.node[0].name, op_type="MatMul", output=["other"])
    return model.SerializeToString()


def _weight_of_another_size() -> bytes:
    import onnx

    model = onnx.load_from_string(graphs.models()[1])
    model.graph.initializer[0].dims[:] = [1024, 1024]
    return model.SerializeToString()


def _one_input() -> bytes:
    model = _model()
    del model.graph.node[0].input[1:]
    return model.SerializeToString()
