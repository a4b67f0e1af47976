"""`eosin audit`: what makes a benchmark's number untrustworthy is found and said."""

from eosin.commands._base import Command, Outcome


def _run(words: list[str]) -> Outcome:
    from eosin.audit.config import Config
    from eosin.audit.run import audit

    report = audit(COMMAND.parse(Config, words))
    problems = report.problems
    others = [finding for finding in report.findings if not finding.is_problem]
    lines = [f"! {finding.sentence}" for finding in problems]
    lines += [f"  {finding.sentence}" for finding in others]
    count = f"{len(problems)} finding{'' if len(problems) == 1 else 's'} to look into"
    lines.append(f"{count}; all pairs are in {report.audit}.")
    if report.sheets:
        lines.append(f"Judge the closest pairs by eye: {', '.join(map(str, report.sheets))}")
    return Outcome(
        text="\n".join(lines),
        facts={
            "audit": str(report.audit),
            "sheets": [str(path) for path in report.sheets],
            "problems": len(problems),
            "findings": [
                {
                    "kind": finding.kind,
                    "dataset": finding.dataset,
                    "is_problem": finding.is_problem,
                    "sentence": finding.sentence,
                    **({} if "names" in finding.facts else {"facts": dict(finding.facts)}),
                }
                for finding in report.findings
            ],
        },
    )


COMMAND = Command(
    name="audit",
    summary="Find leaks between training and test images, and how much of a score is colour.",
    example="eosin audit --on LABELLED --store TILES --encoder ENCODER --out audit",
    run=_run,
)
