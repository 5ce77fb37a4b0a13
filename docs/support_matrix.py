"""Writes the table of what works into README.md and three pages of docs/: `python docs/support_matrix.py`.

Kinds, targets and precisions are those of the registries. What was judged by the gates is stated here, with its source: no
registry knows it.
"""

from __future__ import annotations

import re
from pathlib import Path

from nemoport.cache_layout import KV_PREFIX
from nemoport.export.kinds import KINDS
from nemoport.export.targets import targets
from nemoport.validate.limits import read_limits

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "docs/index.md", "docs/runtimes/index.md", "docs/kinds/table.md")
START, END = "<!-- matrix -->\n", "<!-- end of matrix -->\n"
TITLES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT", "coreai": "Core AI", "coreml": "Core ML"}
GATED, PARTLY, FAILED, CONVERTED, NO = "gated", "some gates", "failed a gate", "converted", "no"
MEANING = f"""**{GATED}**: passed every gate against NeMo on a checkpoint of this repository. **{PARTLY}**: those that were
run passed. **{FAILED}**: see [results](RESULTS). **{CONVERTED}**: can be made, was not judged. **{NO}**: refused. `kv-`: the
faster cache layout.
"""
# (kind, target) -> verdict -> variants. Sources: docs/results.md, bench/targets.md, bench/offline.md.
JUDGED: dict[tuple[str, str], dict[str, str]] = {
    ("streaming-rnnt", "onnx"): {
        GATED: "fp32 fp16 int8-dynamic int8-static int8-smoothquant int8-smoothquant-signed int8-weight int4-mixed int4-weight "
        "kv-fp32 kv-fp16 kv-int8-dynamic kv-int8-static kv-int8-smoothquant kv-int8-weight kv-int4-mixed kv-int4-weight",
    },
    ("streaming-prompt-rnnt", "onnx"): {
        GATED: "fp32 fp16 int8-dynamic int8-static int8-smoothquant kv-fp32 kv-int8-dynamic kv-int8-weight",
        FAILED: "int8-weight",
    },
    ("offline-tdt", "onnx"): {GATED: "fp32 fp16 int8-dynamic int8-static int8-smoothquant int8-weight"},
    ("offline-rnnt", "onnx"): {GATED: "fp32 fp16 int8-dynamic int8-smoothquant", FAILED: "int8-static int8-weight"},
    ("streaming-ctc", "onnx"): {
        GATED: "fp32 int8-dynamic kv-fp32 kv-int8-dynamic kv-int8-static",
        FAILED: "fp16 int8-static int8-weight kv-fp16 kv-int8-weight",
    },
    ("buffered-rnnt", "onnx"): {FAILED: "fp32 int8-weight"},
    ("offline-ctc", "onnx"): {GATED: "fp32 fp16", FAILED: "int8-dynamic int8-static int8-weight"},
    ("offline-tdt", "openvino"): {GATED: "fp32 fp16 int8"},
    ("offline-tdt", "litert"): {GATED: "fp32 int8", PARTLY: "fp16"},
    ("offline-tdt", "coreml"): {PARTLY: "fp32 int8"},
    ("streaming-rnnt", "openvino"): {GATED: "fp32 int8 kv-int8", PARTLY: "fp16 kv-fp32 stateful-fp32 stateful-int8"},
    ("streaming-prompt-rnnt", "openvino"): {GATED: "fp32 int8", PARTLY: "fp16 kv-int8"},
    ("streaming-rnnt", "litert"): {GATED: "fp32 int8", PARTLY: "fp16"},
    ("streaming-prompt-rnnt", "litert"): {GATED: "fp32 int8"},
    ("streaming-rnnt", "coreai"): {PARTLY: "fp32"},
    ("streaming-prompt-rnnt", "coreai"): {PARTLY: "fp32"},
    ("streaming-rnnt", "coreml"): {PARTLY: "fp32 int8"},
}


def variants(target: str) -> list[str]:
    """Names of a target's variants without its own name, as gates.toml has limits for them."""
    limits = {name: one.target for name, one in read_limits().items()}
    if target == "onnx":
        return [name for name, runtime in limits.items() if runtime == "onnxruntime"]
    return [name for name in targets()[target].precisions if f"{target}-{name}" in limits]


def verdict(kind: str, target: str, variant: str) -> str:
    """What is known of a variant: one of the five words."""
    one = next(one for one in KINDS if one.name == kind)
    caches = target == "onnx" and variant.startswith(KV_PREFIX)
    if (caches and not one.streaming) or targets()[target].reason_against(
        variant, streaming=one.streaming, buffered=one.buffered, head=one.head
    ):
        return NO
    judged = JUDGED.get((kind, target), {})
    return next((word for word, names in judged.items() if variant in names.split()), CONVERTED)


def table(results: str) -> str:
    """The table and what its words mean. results: the link to docs/results.md."""
    kinds = [kind.name for kind in KINDS]
    lines = [f"| runtime | variants | {' | '.join(f'`{kind}`' for kind in kinds)} |", f"|---|---|{'---|' * len(kinds)}"]
    for target in sorted(targets(), key=list(TITLES).index):
        rows: dict[tuple[str, ...], list[str]] = {}
        for variant in variants(target):
            rows.setdefault(tuple(verdict(kind, target, variant) for kind in kinds), []).append(variant)
        lines += [f"| {TITLES[target]} | {', '.join(names)} | {' | '.join(cells)} |" for cells, names in rows.items()]
    return "\n".join(lines) + "\n\n" + MEANING.replace("RESULTS", results)


def filled(document: str) -> str:
    """A document's text with the table between its marks, as it should be."""
    text = (ROOT / document).read_text(encoding="utf-8")
    results = {"README.md": "docs/results.md", "docs/index.md": "results.md"}.get(document, "../results.md")
    return re.sub(f"(?<={START}).*?(?={END})", lambda _: "\n" + table(results) + "\n", text, flags=re.DOTALL)


if __name__ == "__main__":
    for document in DOCUMENTS:
        (ROOT / document).write_text(filled(document), encoding="utf-8")
