"""A linear probe as somebody would write it who has never heard of Eosin; a test compares the two.

Images by Pillow, the network by timm alone, scikit-learn's pipeline and grid search.
"""

from collections.abc import Sequence

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

GRID = {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1]}


def features(images: Sequence[np.ndarray], weights: str, side: int) -> np.ndarray:
    """Pooled features [N, 1280] of RGB images."""
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    given = torch.load(weights, weights_only=True)
    trunk = [given[name] for name in given if not name.startswith("_fc")]
    model.load_state_dict(dict(zip(model.state_dict(), trunk, strict=True)))
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), 50):
            batch = [
                np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
                for image in images[start : start + 50]
            ]
            pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float()
            found.append(model((pixels - 127) / 128).numpy())
    return np.concatenate(found)


def accuracy(train: tuple, test: tuple, *, groups=None, valid: tuple | None = None) -> float:
    """Fits on `(features, labels)` and scores; chooses by groups of `train` or on `valid`."""
    x, y = train
    if valid is None:
        search = GridSearchCV(_pipeline(), GRID, cv=GroupKFold(5), scoring="balanced_accuracy")
        fitted = search.fit(x, y, groups=groups).best_estimator_
    else:
        fold = np.r_[np.full(len(y), -1), np.zeros(len(valid[1]), int)]
        search = GridSearchCV(
            _pipeline(), GRID, cv=PredefinedSplit(fold), scoring="balanced_accuracy", refit=False
        )
        search.fit(np.r_[x, valid[0]], np.r_[y, valid[1]])
        fitted = _pipeline().set_params(**search.best_params_).fit(x, y)
    return float((fitted.predict(test[0]) == test[1]).mean())


def _pipeline():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
