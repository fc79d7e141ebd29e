"""
Search for settings with scikit-learn
=====================================

A network is an estimator like any other: ``GridSearchCV`` tries sizes and learning
rates.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from brainstorm.estimators import NetworkClassifier

X, y = load_digits(return_X_y=True)
X, y = X[:600] / 16, y[:600]

sizes = ["F10", "F30", "F100"]
rates = [0.0003, 0.003, 0.03, 0.3]
search = GridSearchCV(
    NetworkClassifier(epochs=8, batch_size=50, random_state=1),
    {"network": sizes, "stepper__learning_rate": rates},
    cv=3,
).fit(X, y)
print(search.best_params_, round(search.best_score_, 3))

# %%

scores = search.cv_results_["mean_test_score"].reshape(len(sizes), len(rates))
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
figure.suptitle("Accuracy by learning rate and size of the network")
ax.imshow(scores, vmin=0, vmax=1, cmap="viridis")
for (row, column), score in np.ndenumerate(scores):
    ax.text(column, row, f"{score:.2f}", ha="center", va="center", color="w")
ax.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
ax.set_yticks(range(len(sizes)), sizes)
ax.set(xlabel="learning rate", ylabel="network")

# %%
# The best one, trained on all of the data, is a network with everything that networks
# have:

net = search.best_estimator_.network_
print(net.get("FullyConnected.parameters.W").shape)
