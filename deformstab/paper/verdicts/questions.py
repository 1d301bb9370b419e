"""The open questions, and what the runs answer.

All rules stand in `questions_of_stability.py` (questions 1 to 3), `questions_of_training.py` (4 and 5)
and `questions_of_errors.py` (6), how they give verdicts in `question_rules.py`: written and committed
before any of the measurements of `results/questions` that they read was made. What was known then is
in `docs/reproduction.md`. Seeds are the unit, as in `claims.py`: a
statistic is one number a seed, mostly a difference of logs paired by seed, and a row tells the
exponential of its mean, a ratio, with Student's 95 % interval over seeds.

Holm adjusts for all decisive statistics of all questions. Those whose runs are still missing count
in its number as well, with p = 1: a verdict does not weaken when they come. It stays "undecided" as
well where a trained network's accuracy on its training images differs, in inference mode and with
batch statistics, by more than 0.05: then its statistics are not to be trusted. Rows that are not
decisive are context: intervals and no verdict.
"""

import numpy as np
import pandas as pd

from deformstab.measurement.intervals import holm
from deformstab.paper.questions.logits import DIFFEOMORPHISM
from deformstab.paper.runs.question_experiments import CIRCULAR, FOLLOWED, NETWORK, SIZED
from deformstab.paper.verdicts import claim_notes
from deformstab.paper.verdicts.claims import ACCURACY_TOLERANCE, DESCRIPTION
from deformstab.paper.verdicts.question_rules import UNDECIDED
from deformstab.paper.verdicts.questions_of_errors import OF_ERRORS
from deformstab.paper.verdicts.questions_of_stability import OF_STABILITY
from deformstab.paper.verdicts.questions_of_training import OF_TRAINING
from deformstab.paper.verdicts.statistics_of_errors import errors

STATISTICS = (*OF_STABILITY, *OF_TRAINING, *OF_ERRORS)
PARTS_OF = {  # the networks that a question is asked of
    **{"1": (NETWORK,), "2": (CIRCULAR,), "3": (NETWORK,)},
    **{"4": (FOLLOWED,), "5": (FOLLOWED,), "6": (FOLLOWED, SIZED)},
}


def questions(results) -> pd.DataFrame:
    """What the open questions come to.

    Returns:
        A row a statistic: `question`, `asks`, `what`, `condition`, `decisive`; `value`, a ratio
        (some others: see `what`), with its interval `low`, `high`; `seeds`; of decisive ones `p`
        (adjusted) and `verdict`; `note`. Empty without runs.
    """
    if not any(name.startswith("question_") and len(t) for name, t in results.tables.items()):
        return pd.DataFrame()
    found = [each.values(results).dropna() for each in STATISTICS]
    p_values = [
        each.rule.p_value(values) if each.decisive else np.nan
        for each, values in zip(STATISTICS, found)
    ]
    rows = []
    for each, values, p in zip(STATISTICS, found, holm(p_values)):
        value, low, high = each.rule.told(values)
        note, trusted = _note(results, each, len(values))
        verdict = each.rule.verdict(values, p) if trusted else UNDECIDED
        rows.append(
            {
                "question": each.rule.question,
                "asks": each.rule.asks,
                "what": each.what,
                "condition": each.condition,
                "decisive": each.decisive,
                "value": value,
                "low": low,
                "high": high,
                "seeds": len(values),
                "p": p,
                "verdict": verdict if each.decisive else "",
                "note": note,
            }
        )
    return pd.DataFrame(rows)


def _note(results, statistic, seeds) -> tuple[str, bool]:
    """What is to be known of the networks of a row, and whether they are to be trusted."""
    if not seeds:
        return "the runs it needs are missing, or could not be measured", True
    training = results.tables.get("question_training", pd.DataFrame())
    notes, gap = ["too few seeds" * (seeds < DESCRIPTION)], 0.0
    if len(training):
        part = training[training["part"].isin(PARTS_OF[statistic.rule.question])]
        part = part[part["downsampling"].isin(statistic.kinds)]
        there = [kind for kind in statistic.kinds if kind in set(part["downsampling"])]
        if len(there) < len(statistic.kinds):
            notes.append(f"of {', '.join(there)} only")
        if not statistic.condition.startswith("initial"):
            short = int((~part["fits"].astype(bool)).sum())
            if short and results.preset.stop_accuracy:
                notes.append(f"{short} of {len(part)} networks stopped before they fitted")
            gap = claim_notes.accuracy_gap(part)
            if statistic.rule.question == "6":
                sizes = sorted(set(errors(results, DIFFEOMORPHISM, "euclidean")["train_images"]))
                notes.append(f"networks of {', '.join(f'{size:.0f}' for size in sizes)} images")
            if gap > ACCURACY_TOLERANCE:
                notes.append(f"accuracy with batch statistics and in inference differ by {gap:.3f}")
    return claim_notes.join(*notes), not gap > ACCURACY_TOLERANCE
