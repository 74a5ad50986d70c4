"""A search publishes its best student to S3; an environment that has timm, torch and ONNX Runtime pulls and loads it.

    python -m tests.publishing.elsewhere          (about 4 minutes on 2 cores, and 5 GB for the environment)

`python -m singer_ray.tune --export s3://...` runs a small search against an S3 server process. In the other
environment, which has nothing of singer_ray, a process fetches the package by its manifest through signed addresses,
compares every hash, and loads it: features, logits of the head, and what model.onnx gives, against what the student in
the search's own folder gives here. Largest differences: ../benchmarks/elsewhere.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import torch

from singer_ray.layout import MANIFEST
from singer_ray.publishing.formats import open_outputs
from tests.benchmarks.children import write_raw
from tests.servers import ENVIRONMENT, s3_server

SETTINGS: dict[str, Any] = {
    "search.trials": 3,
    "search.space": "quick",
    "train.epochs": 2,
    "train.steps_per_epoch": 20,
    "export.top": 1,
    "export.onnx": "yes",
}
PULLER = """
import hashlib, importlib.util, json, sys, urllib.request
from pathlib import Path
addresses, folder, images, found_at = json.load(open(sys.argv[1])), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
for name in ("singer_ray", "ray", "pyarrow", "boto3", "optuna"):
    assert importlib.util.find_spec(name) is None, name
manifest = json.loads(urllib.request.urlopen(addresses["MANIFEST.json"]).read())
for name, entry in manifest["files"].items():
    content = urllib.request.urlopen(addresses[name]).read()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"]), name
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
import numpy as np, timm, torch
from safetensors.torch import load_file
pixels = torch.from_numpy(np.load(images))
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
with torch.no_grad():
    found = {"tokens": model.forward_features(pixels).numpy(), "pooled": model(pixels).numpy()}
    head = load_file(folder / "head.safetensors")
    model.reset_classifier(len(head["bias"]))
    model.get_classifier().load_state_dict(head)
    found["logits"] = model(pixels).numpy()
import onnxruntime
session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
for name, value in zip(found.copy(), session.run(list(found), {"pixels": pixels.numpy()})):
    found[f"onnx_{name}"] = value
np.savez(found_at, **found)
print(json.dumps({"torch": torch.__version__, "timm": timm.__version__, "onnxruntime": onnxruntime.__version__}))
"""


def main() -> None:
    """Searches, publishes, pulls and loads elsewhere, compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="interpreter of an environment that is there already")
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as made, s3_server() as server:
        place = Path(made)
        python = arguments.python or _environment(place / "venv")
        client = boto3.client("s3", endpoint_url=server)
        client.create_bucket(Bucket="elsewhere")
        flags = [part for name, value in SETTINGS.items() for part in (f"--{name}", str(value))]
        to = ["--export", "s3://elsewhere/students", "--export.endpoint", server]
        search = [sys.executable, "-m", "singer_ray.tune", "--out", str(place / "search"), *flags, *to]
        subprocess.run(search, check=True, cwd=Path(__file__).parents[2])
        (student,) = (place / "search" / "best").iterdir()
        prefix = f"students/search/students/{student.name}/"
        keys = [e["Key"] for e in client.list_objects_v2(Bucket="elsewhere", Prefix=prefix)["Contents"]]
        assert f"{prefix}{MANIFEST}" in keys
        signed = {
            key.removeprefix(prefix): client.generate_presigned_url(
                "get_object", Params={"Bucket": "elsewhere", "Key": key}
            )
            for key in keys
        }
        (place / "addresses.json").write_text(json.dumps(signed))
        figures = compare(student, python, place)
    print(json.dumps(figures, indent=1))
    assert all(value <= (1e-4 if name.startswith("onnx_") else 1e-6) for name, value in figures["differences"].items())
    path = Path(__file__).parents[1] / "benchmarks" / "elsewhere.json"
    write_raw(path, "tests.publishing.elsewhere", {"settings": SETTINGS, **figures})


def compare(student: Path, python: str, place: Path) -> dict[str, Any]:
    """Largest absolute difference of each output, there against here, and the versions there."""
    outputs, _ = open_outputs(student)
    size = json.loads((student / "config.json").read_text())["pretrained_cfg"]["input_size"]
    pixels = torch.randn(5, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        here = {name: value.numpy() for name, value in zip(outputs.names, outputs(pixels))}
    np.save(place / "pixels.npy", pixels.numpy())
    files = [place / name for name in ("addresses.json", "pulled", "pixels.npy", "there.npz")]
    done = subprocess.run(
        [python, "-c", PULLER, *map(str, files)],
        check=True,
        capture_output=True,
        text=True,
        cwd=place,
        env={"PATH": os.environ["PATH"]},
    )
    with np.load(place / "there.npz") as there:
        differences = {
            name: float(np.abs(there[name] - here[name.removeprefix("onnx_")]).max()) for name in there.files
        }
    return {"differences": differences, "versions_there": json.loads(done.stdout.splitlines()[-1])}


def _environment(folder: Path) -> str:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", folder], check=True)
    python = str(folder / "bin" / "python")
    packages = ["timm", "torch", "safetensors", "onnxruntime", "numpy"]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)
    return python


if __name__ == "__main__":
    main()
