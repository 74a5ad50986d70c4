"""Upload of a package with 200 MB of weights, against boto3's own transfer manager, on one S3 server.

    python -m tests.benchmarks.upload        (a moto server in a process of its own; about 2 minutes on 2 cores)

The same random file, interleaved: `upload_file` of boto3 with its defaults, and the store as it is: every file hashed
before and compared after by what the server says it has received, under a claim, with the manifest. Best and median of
the rounds. Raw figures: upload.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import boto3

from singer_ray.publishing.packages.manifest import write_manifest
from singer_ray.publishing.packages.store import Store
from tests.benchmarks.children import write_raw
from tests.servers import ENVIRONMENT, s3_server

MEGABYTES = 200


def main() -> None:
    """Measures, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    os.environ.update(ENVIRONMENT)
    seconds: dict[str, list[float]] = {"boto3": [], "store": []}
    with s3_server() as server, tempfile.TemporaryDirectory() as made:
        weights = Path(made) / "model.safetensors"
        weights.write_bytes(os.urandom(MEGABYTES * 1_000_000))
        write_manifest(Path(made))
        client = boto3.client("s3", endpoint_url=server)
        for _ in range(rounds):
            for way, taken in seconds.items():
                client.create_bucket(Bucket="upload")
                store = Store("s3://upload", server)  # connected before, as boto3's client is
                begin = time.perf_counter()
                if way == "boto3":
                    client.upload_file(str(weights), "upload", "package/model.safetensors")
                else:
                    store.put(Path(made), "package")
                taken.append(time.perf_counter() - begin)
                for found in client.list_objects_v2(Bucket="upload")["Contents"]:
                    client.delete_object(Bucket="upload", Key=found["Key"])
                client.delete_bucket(Bucket="upload")
                print(f"{way}: {taken[-1]:.2f} s", flush=True)
    figures = {
        way: {
            "seconds": [round(s, 3) for s in taken],
            "megabytes_per_second": round(MEGABYTES / statistics.median(taken), 1),
            "share_of_boto3": round(statistics.median(a / b for a, b in zip(seconds["boto3"], taken)), 3),
            "share_of_boto3_by_best": round(min(seconds["boto3"]) / min(taken), 3),
        }
        for way, taken in seconds.items()
    }
    for way, found in figures.items():
        print(f"{way}: {found['megabytes_per_second']} MB/s, {found['share_of_boto3']} of boto3")
    write_raw(Path(__file__).with_suffix(".json"), "tests.benchmarks.upload", figures)


if __name__ == "__main__":
    main()
