"""A published student in an environment that has timm, torch and ONNX Runtime, and nothing of singer_ray.

    python -m tests.publishing.elsewhere runs/demo    (a run or a search; about 2 minutes and 5 GB for the environment)

Publishes the experiment to an S3 server process, copies the package with boto3 alone, and loads it in the other
environment: features, logits of the head and those of model.onnx against the ones computed here from the folder that
was published. Largest differences: ../benchmarks/elsewhere.json.
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

from singer_ray.config import ExportConfig
from singer_ray.publishing.delivery import deliver
from singer_ray.publishing.experiment import Experiment, Selection
from singer_ray.publishing.formats import open_outputs
from singer_ray.publishing.store import Store
from tests.benchmarks.children import write_raw
from tests.servers import ENVIRONMENT, s3_server

LOADER = """
import importlib.util, json, sys
import numpy as np
folder, images = sys.argv[1:3]
assert importlib.util.find_spec("singer_ray") is None and importlib.util.find_spec("pyarrow") is None
import timm, torch
from safetensors.torch import load_file
from pathlib import Path
pixels = torch.from_numpy(np.load(images))
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
with torch.no_grad():
    found = {"tokens": model.forward_features(pixels).numpy(), "pooled": model(pixels).numpy()}
    if Path(folder, "head.safetensors").exists():
        head = load_file(f"{folder}/head.safetensors")
        model.reset_classifier(len(head["bias"]))
        model.get_classifier().load_state_dict(head)
        found["logits"] = model(pixels).numpy()
import onnxruntime
session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
for name, value in zip(found.copy(), session.run(list(found), {"pixels": pixels.numpy()})):
    found[f"onnx_{name}"] = value
np.savez(sys.argv[3], **found)
print(json.dumps({"torch": torch.__version__, "timm": timm.__version__, "onnxruntime": onnxruntime.__version__}))
"""


def main() -> None:
    """Publishes, fetches, loads elsewhere, compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--python", help="interpreter of an environment that is there already")
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        python = arguments.python or _environment(place / "venv")
        with s3_server() as server:
            client = boto3.client("s3", endpoint_url=server)
            client.create_bucket(Bucket="elsewhere")
            settings = ExportConfig(endpoint=server, onnx="yes", top=1)
            store = Store("s3://elsewhere/students", settings=settings)
            (published,) = deliver(Experiment(arguments.experiment), store, settings, Selection(top=1))
            prefix = f"{published.address.removeprefix('s3://elsewhere/')}/"
            for entry in client.list_objects_v2(Bucket="elsewhere", Prefix=prefix)["Contents"]:
                path = place / "fetched" / entry["Key"].removeprefix(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file("elsewhere", entry["Key"], str(path))
        figures = compare(place / "fetched", python, place)
    print(json.dumps(figures, indent=1))
    assert all(value <= (1e-4 if name.startswith("onnx_") else 1e-6) for name, value in figures["differences"].items())
    path = Path(__file__).parents[1] / "benchmarks" / "elsewhere.json"
    write_raw(path, "tests.publishing.elsewhere RUN", figures)


def compare(folder: Path, python: str, place: Path) -> dict[str, Any]:
    """Largest absolute difference of each output, there against here, and the versions there."""
    outputs, _ = open_outputs(folder)
    size = json.loads((folder / "config.json").read_text())["pretrained_cfg"]["input_size"]
    pixels = torch.randn(5, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        here = {name: value.numpy() for name, value in zip(outputs.names, outputs(pixels))}
    np.save(place / "pixels.npy", pixels.numpy())
    done = subprocess.run(
        [python, "-c", LOADER, str(folder), str(place / "pixels.npy"), str(place / "there.npz")],
        check=True, capture_output=True, text=True, cwd=place, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
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
