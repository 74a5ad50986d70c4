"""Clusters that are not there, and what a cluster cannot do."""

from __future__ import annotations

from tests.bad_input.case import Case

CASES: list[Case] = [
    ("tune", ["--submit", "http://no-such-host.invalid:8265"], "the host 'no-such-host.invalid' is not known. Give"),
    ("tune", ["--submit", "no-such-host.invalid:8265"], "Give http://HEAD:8265"),
    ("tune", ["--submit", "ray://no-such-host.invalid:10001"], "Give http://HEAD:8265"),
    ("tune", ["--search.cpus_per_trial", "0"], "search.cpus_per_trial is '0'"),
    ("tune", ["--search.gpus_per_trial", "1.5"], "Allowed: a fraction of one GPU, or a whole number of GPUs"),
    ("tune", ["--concurrent", "-1"], "search.concurrent is '-1'"),
    ("train", ["--workers", "2", "--train.launcher", "local"], "train.launcher local runs one worker"),
]
