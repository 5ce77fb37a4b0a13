"""ONNX graphs on disk, as every stage writes them."""

from __future__ import annotations

from pathlib import Path


def save_model(model, path: Path, metadata: dict[str, str]) -> None:
    """Writes an onnx.ModelProto to `path` and one sidecar `path`.data, replacing what stands there.

    metadata: for the model's metadata_props.
    """
    import onnx

    onnx.helper.set_model_props(model, metadata)
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)  # onnx appends to a sidecar that exists
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=data.name,
        size_threshold=1024,
        convert_attribute=False,
    )
    data.chmod(0o644)  # onnx creates it for its owner only
