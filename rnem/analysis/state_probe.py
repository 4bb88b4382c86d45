"""Is a hidden ball's position in the state? A linear reader, learned on validation videos, asked on test videos.

Only frames in which exactly one ball is hidden are used, for every model alike: a model with one state for the whole
scene could not be told which of two is meant.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from rnem.analysis import occlusion
from rnem.analysis.occlusion import Watched
from rnem.runs.store import Run
from rnem.videos.balls import CURTAIN

STRENGTHS = 10.0 ** np.arange(-2, 6)
"""Of the ridge penalty, on standardised inputs."""
FOLDS = 5
"""Parts of the videos, each left out once to choose the strength."""
GUESSES = occlusion.GUESSES | {"centre": "the curtain's centre"}


def probed(run: Run, data: str | None = None, count: int | None = None) -> pd.DataFrame:
    """Every frame of the first ``count`` test videos with one ball hidden, computed once.

    A row per such frame and draw. Columns: ``draw``, video, ball, frame, ``hidden`` (how many frames so far, this one
    with it), and the errors in pixels of the position that is read from the state (``error``) and of GUESSES. The
    reader learned from as many validation videos, and from the same draw.
    """
    return occlusion.keep_tables(run, "probe", {"probe": probed_rows}, ("test", "validation"), data, count)


def probed_rows(test: Watched, learning: Watched) -> pd.DataFrame:
    """What :func:`probed` keeps."""
    (x, y, some), (known_x, known_y, known) = states(test), states(learning)
    guess = reader(known_x, known_y, known["video"].to_numpy())(x)
    centre = test.videos.curtain.numpy()[some["video"]] + CURTAIN / 2
    pixel = occlusion.pixel(test.videos)
    errors = {name: np.linalg.norm(p - y, axis=1) / pixel for name, p in (("error", guess), ("centre", centre))}
    rows = some[["video", "ball", "frame", "hidden"]]
    return rows.assign(**errors, **occlusion.without_model(test.videos, some, "frame"))


def states(seen: Watched) -> tuple[Float[np.ndarray, "A S"], Float[np.ndarray, "A 2"], pd.DataFrame]:
    """theta of the component that had the hidden ball, the ball's position, and the :func:`moments` themselves.

    The component is that of the last frame with half of the ball in sight; theta is the one that predicts the frame, so
    that its inputs end a frame earlier.
    """
    some = moments(seen.share, seen.spells[seen.spells["before"] >= 1])
    n, m, t = (some[column].to_numpy() for column in ("video", "ball", "frame"))
    component = seen.owner[some["before"].to_numpy() - 1, n, m]
    had = component >= 0
    x = seen.theta[t[had] - 1, n[had], component[had]].astype(float)
    return x, seen.videos.positions.double().numpy()[t, n, m][had], some[had].reset_index(drop=True)


def moments(share: Float[np.ndarray, "T N M"], some: pd.DataFrame) -> pd.DataFrame:
    """A row per frame of a spell in which no other ball is hidden: its columns, ``frame``, ``hidden`` so far."""
    alone = (share == 0).sum(2) == 1  # (T,N)
    rows = some.loc[some.index.repeat(some["hidden"])]
    hidden = rows.groupby(level=0).cumcount() + 1
    rows = rows.assign(frame=rows["start"] + hidden - 1, hidden=hidden)
    return rows[alone[rows["frame"], rows["video"]]].reset_index(drop=True)


def reader(
    x: Float[np.ndarray, "A S"], y: Float[np.ndarray, "A 2"], video: Int[np.ndarray, " A"]
) -> Callable[[np.ndarray], np.ndarray]:
    """The ridge regression x -> y on standardised inputs, of the strength that fits videos left out best.

    ValueError where there are too few videos.
    """
    # Imported here, as figures import this module for its labels, and scikit-learn takes a second.
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = min(FOLDS, len(np.unique(video)))
    if folds < 2:
        raise ValueError("no linear reader can be learned: too few videos have a ball hidden alone")
    splits = list(GroupKFold(folds).split(x, groups=video))
    ridge = RidgeCV(STRENGTHS, cv=splits, scoring="neg_mean_squared_error")
    return make_pipeline(StandardScaler(), ridge).fit(x, y).predict
