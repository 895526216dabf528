"""One frozen, keyword-only config per stage: checked once at the door, written down with the result."""

from typing import TYPE_CHECKING

from cleanctl.lazy import importing

if TYPE_CHECKING:
    from cleanctl.config.adapt import AdaptConfig
    from cleanctl.config.audit import AuditConfig, ReviewSampleConfig
    from cleanctl.config.conflicts import ConflictsConfig
    from cleanctl.config.demo import DemoConfig
    from cleanctl.config.diff import DiffConfig
    from cleanctl.config.embed import EmbedConfig, FailureBound, Noise
    from cleanctl.config.evaluate import EvalConfig
    from cleanctl.config.export import ExportConfig
    from cleanctl.config.import_arrays import ImportConfig
    from cleanctl.config.option import Config, one_of, require_plain_name, within
    from cleanctl.config.prompts import PromptsCheckConfig, PromptsShowConfig, PromptsWriteConfig
    from cleanctl.config.report import ReportConfig
    from cleanctl.config.reproduce import ReproduceConfig
    from cleanctl.config.review import ReviewApplyConfig, ReviewListConfig, ReviewRemoveConfig, ReviewServeConfig
    from cleanctl.config.select import SelectConfig
    from cleanctl.config.shared import LOADERS, require_split_name
    from cleanctl.config.train import TrainConfig

__all__ = [
    "LOADERS",
    "AdaptConfig",
    "AuditConfig",
    "Config",
    "ConflictsConfig",
    "DemoConfig",
    "DiffConfig",
    "EmbedConfig",
    "EvalConfig",
    "ExportConfig",
    "FailureBound",
    "ImportConfig",
    "Noise",
    "PromptsCheckConfig",
    "PromptsShowConfig",
    "PromptsWriteConfig",
    "ReportConfig",
    "ReproduceConfig",
    "ReviewApplyConfig",
    "ReviewListConfig",
    "ReviewRemoveConfig",
    "ReviewSampleConfig",
    "ReviewServeConfig",
    "SelectConfig",
    "TrainConfig",
    "one_of",
    "require_plain_name",
    "require_split_name",
    "within",
]

__getattr__ = importing(
    __name__,
    {
        "adapt": "AdaptConfig",
        "audit": "AuditConfig ReviewSampleConfig",
        "conflicts": "ConflictsConfig",
        "demo": "DemoConfig",
        "diff": "DiffConfig",
        "embed": "EmbedConfig FailureBound Noise",
        "evaluate": "EvalConfig",
        "export": "ExportConfig",
        "import_arrays": "ImportConfig",
        "option": "Config one_of require_plain_name within",
        "prompts": "PromptsCheckConfig PromptsShowConfig PromptsWriteConfig",
        "report": "ReportConfig",
        "reproduce": "ReproduceConfig",
        "review": "ReviewApplyConfig ReviewListConfig ReviewRemoveConfig ReviewServeConfig",
        "select": "SelectConfig",
        "shared": "LOADERS require_split_name",
        "train": "TrainConfig",
    },
)


def __dir__() -> list[str]:
    return __all__
