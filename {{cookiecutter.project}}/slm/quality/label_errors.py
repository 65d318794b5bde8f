"""Labels that may be wrong, found by out-of-sample prediction: for a person to look at. Nothing is dropped or
changed for it.
"""

from collections import Counter
from typing import Any

from cleanlab.filter import find_label_issues
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline, make_union

from slm.task.answers import class_of
from slm.task.definition import Task
from slm.task.records import TASK, Record
from slm.task.text import units

FOLDS = 3
SHOWN_LABELS = 40


def doubtful_labels(task: Task, splits: dict[str, list[Record]]) -> dict[str, Any]:
    """Examples whose class is unlikely by a classifier of words and letters that has not seen them, the least
    likely first.

    Confident learning (Northcutt et al., arXiv 1911.00068), by cleanlab. Only the class of an answer is
    looked at, not its arguments.

    Returns:
        `looked_at` and `found`, numbers of examples; `shown`, at most 40 rows of file, line, text, answer,
        and the likelier class.
    """
    nothing: dict[str, Any] = {"looked_at": 0, "found": 0, "shown": []}
    named = [
        (name, r, class_of(task, r.answer)) for name, records in splits.items() for r in records if r.answer
    ]
    counts = Counter(c for _, _, c in named)
    rows = [(name, r, c) for name, r, c in named if c is not None and counts[c] >= FOLDS]
    classes = sorted({c for _, _, c in rows})
    if len(classes) < 2:
        return nothing
    words = TfidfVectorizer(
        tokenizer=units, token_pattern=None, ngram_range=(1, 2), sublinear_tf=True, min_df=2
    )
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True, min_df=3)
    model = make_pipeline(make_union(words, letters), LogisticRegression(C=10, max_iter=300))
    labels = [classes.index(c) for _, _, c in rows]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    try:
        chances = cross_val_predict(
            model, [r.asked for _, r, _ in rows], labels, cv=folds, method="predict_proba"
        )
    except ValueError:  # so few or so unlike examples that no two share a word: nothing to judge by
        return nothing
    found = find_label_issues(labels, chances, return_indices_ranked_by="self_confidence", n_jobs=1)
    shown = [
        {
            "file": f"{TASK}/{rows[i][0]}.jsonl",
            "line": rows[i][1].line,
            "text": rows[i][1].asked,
            "answer": rows[i][1].answer,
            "likelier": classes[int(chances[i].argmax())],
        }
        for i in found[:SHOWN_LABELS]
    ]
    return {"looked_at": len(rows), "found": len(found), "shown": shown}
