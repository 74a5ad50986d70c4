"""Every setting, in one frozen tree.

The same dotted names are used in preset files (nested), in search spaces and on the command line
(`--method.rank 16`). Unknown names are refused with the nearest known one.
"""

from __future__ import annotations

from singer_ray.config.evaluation import EvaluationConfig, OfficialConfig
from singer_ray.config.inputs import DataConfig, StudentConfig, TeacherConfig
from singer_ray.config.method import MethodConfig
from singer_ray.config.recipe import TeacherRecipe
from singer_ray.config.running import ExportConfig, SearchConfig, TrainConfig
from singer_ray.config.sources import EvaluationSourceConfig, ScenesConfig, SourceConfig
from singer_ray.config.tree import Config, field_names, load_preset, read_yaml_mapping

__all__ = [
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "EvaluationSourceConfig",
    "ExportConfig",
    "MethodConfig",
    "OfficialConfig",
    "ScenesConfig",
    "SearchConfig",
    "SourceConfig",
    "StudentConfig",
    "TeacherConfig",
    "TeacherRecipe",
    "TrainConfig",
    "field_names",
    "load_preset",
    "read_yaml_mapping",
]
