"""What each verb returns: frozen records, a file a verb, all importable from here.

Shares, rates and accuracies are in [0, 1], times in seconds; None says that a number is not known or not defined.
"""

from typing import TYPE_CHECKING

from cleanctl.lazy import importing

if TYPE_CHECKING:
    from cleanctl.results.adapt import AdaptResult
    from cleanctl.results.audit import AuditReport, AuditStratum, Estimate, ReviewSample, SampleStratum
    from cleanctl.results.conflicts import ConflictCount, ConflictsSummary, LargestGroup
    from cleanctl.results.demo import DemoResult
    from cleanctl.results.diff import DiffClass, DiffReason, SelectionDiff
    from cleanctl.results.embed import EmbedSummary, Failure, FailureKind, FailureReport, SplitSummary
    from cleanctl.results.evaluate import (
        Accuracy,
        Confusion,
        Detection,
        EvalReport,
        RuleQuality,
        RunAccuracy,
        SelectionQuality,
        ZeroShotAccuracy,
    )
    from cleanctl.results.export import ExportResult
    from cleanctl.results.prompts import PromptCheck, PromptListing, PromptsWritten, ShippedSets
    from cleanctl.results.report import ReportResult
    from cleanctl.results.reproduce import Cell, Measured, ReproduceReport
    from cleanctl.results.result import Result
    from cleanctl.results.review import Conflicting, ReviewApplied, ReviewList, ReviewRemoved, ReviewServed, VerdictLine
    from cleanctl.results.select import (
        ClassSummary,
        ConfusedPair,
        ConfusionCounts,
        Expected,
        Reviewed,
        RuleSummary,
        ScoreSummary,
        SelectionSummary,
        Transition,
    )
    from cleanctl.results.status import RunStatus, SelectionStatus, SplitStatus, StatusReport, VerdictStatus
    from cleanctl.results.train import SeedsResult, Spread, TrainResult

__all__ = [
    "Accuracy",
    "AdaptResult",
    "AuditReport",
    "AuditStratum",
    "Cell",
    "ClassSummary",
    "ConflictCount",
    "Conflicting",
    "ConflictsSummary",
    "ConfusedPair",
    "Confusion",
    "ConfusionCounts",
    "DemoResult",
    "Detection",
    "DiffClass",
    "DiffReason",
    "EmbedSummary",
    "Estimate",
    "EvalReport",
    "Expected",
    "ExportResult",
    "Failure",
    "FailureKind",
    "FailureReport",
    "LargestGroup",
    "Measured",
    "PromptCheck",
    "PromptListing",
    "PromptsWritten",
    "ReportResult",
    "ReproduceReport",
    "Result",
    "ReviewApplied",
    "ReviewList",
    "ReviewRemoved",
    "ReviewSample",
    "ReviewServed",
    "Reviewed",
    "RuleQuality",
    "RuleSummary",
    "RunAccuracy",
    "RunStatus",
    "SampleStratum",
    "ScoreSummary",
    "SeedsResult",
    "SelectionDiff",
    "SelectionQuality",
    "SelectionStatus",
    "SelectionSummary",
    "ShippedSets",
    "SplitStatus",
    "SplitSummary",
    "Spread",
    "StatusReport",
    "TrainResult",
    "Transition",
    "VerdictLine",
    "VerdictStatus",
    "ZeroShotAccuracy",
]

__getattr__ = importing(
    __name__,
    {
        "adapt": "AdaptResult",
        "audit": "AuditReport AuditStratum Estimate ReviewSample SampleStratum",
        "conflicts": "ConflictCount ConflictsSummary LargestGroup",
        "demo": "DemoResult",
        "diff": "DiffClass DiffReason SelectionDiff",
        "embed": "EmbedSummary Failure FailureKind FailureReport SplitSummary",
        "evaluate": "Accuracy Confusion Detection EvalReport RuleQuality RunAccuracy SelectionQuality ZeroShotAccuracy",
        "export": "ExportResult",
        "prompts": "PromptCheck PromptListing PromptsWritten ShippedSets",
        "report": "ReportResult",
        "reproduce": "Cell Measured ReproduceReport",
        "result": "Result",
        "review": "Conflicting ReviewApplied ReviewList ReviewRemoved ReviewServed VerdictLine",
        "select": "ClassSummary ConfusedPair ConfusionCounts Expected Reviewed RuleSummary ScoreSummary "
        "SelectionSummary Transition",
        "status": "RunStatus SelectionStatus SplitStatus StatusReport VerdictStatus",
        "train": "SeedsResult Spread TrainResult",
    },
)


def __dir__() -> list[str]:
    return __all__
