"""Search for good settings with scikit-learn
==========================================

`NetworkClassifier` is an estimator like those of scikit-learn, so `GridSearchCV` tries
all combinations of its settings: which hidden layers, and which learning rate. Each is
trained and scored on three splits of the training data.
"""

import matplotlib
import numpy as np
from common import load_data, parse_arguments
from sklearn.model_selection import GridSearchCV

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from brainstorm.estimators import NetworkClassifier

args = parse_arguments(__doc__, epochs=10)
if args.gpu:
    raise SystemExit("--gpu: the estimators compute on the CPU")

# %%
# The data
# --------
#
# scikit-learn's estimators take a matrix with a row for each sample.

data = load_data(args.data, "Digits")


def rows(part):
    """Samples (B, F) and their classes (B,)."""
    images, targets = data[part]["default"][0], data[part]["targets"][0, :, 0]
    return images.reshape(len(images), -1), targets


# %%
# The search
# ----------
#
# A text such as ``"F20 F20"`` is a short way to tell the hidden layers. Arguments of
# the stepper, which is Adam, have two underscores in front.

networks = ["F10", "F50", "F50 F50"]
learning_rates = [0.0003, 0.003, 0.03]
search = GridSearchCV(
    NetworkClassifier(epochs=args.epochs, random_state=args.seed),
    {"network": networks, "stepper__learning_rate": learning_rates},
    cv=3,
)
search.fit(*rows("training"))
print("best:", search.best_params_)

# %%
# A picture
# ---------
#
# The results are listed with the last setting changing fastest.

scores = search.cv_results_["mean_test_score"]
scores = np.reshape(scores, (len(networks), len(learning_rates)))

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
image = axes.imshow(scores, cmap="viridis", aspect="auto")
for row, column in np.ndindex(scores.shape):
    color = "k" if scores[row, column] > scores.mean() else "w"
    text = f"{scores[row, column]:.3f}"
    axes.text(column, row, text, ha="center", va="center", color=color)
axes.set_xticks(range(len(learning_rates)), learning_rates)
axes.set_yticks(range(len(networks)), networks)
axes.set(xlabel="learning rate", ylabel="hidden layers", title="mean accuracy")
figure.savefig(args.output_dir / "search_grid.png", dpi=120)

# %%
# The result
# ----------
#
# The best settings are used once more, with all training data; `search.best_estimator_`
# is that classifier, and `search.best_estimator_.network_` its network.

print(f"test accuracy: {search.score(*rows('test')):.3f}")
