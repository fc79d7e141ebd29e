"""Train here, and run elsewhere by ONNX
=====================================

ONNX is a file format for networks, which runtimes on phones, in browsers and in other
languages read. A network for digits is trained and exported, and ONNX Runtime computes
from the file alone what it makes of the test images: the same, but for rounding.

Besides what all examples need, this takes ``pip install onnx onnxruntime``.
"""

import matplotlib
import numpy as np
import onnxruntime
from common import load_data, parse_arguments

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import brainstorm as bs

args = parse_arguments(__doc__, epochs=5)

# %%
# The network
# -----------

data = load_data(args.data, "Digits")
image_shape = data["training"]["default"].shape[2:]

inp, out = bs.tools.get_in_out_layers("classification", image_shape, 10)
(
    inp
    >> bs.layers.Convolution2D(16, kernel_size=(3, 3), padding=1, name="Conv")
    >> bs.layers.Pooling2D(kernel_size=(2, 2), stride=(2, 2))
    >> bs.layers.Dropout(0.3)
    >> out
)
network = bs.Network.from_layer(out)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize("he")

trainer = bs.Trainer(bs.training.AdamStepper(0.01))
trainer.add_hook(bs.hooks.ProgressBar())
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, bs.Minibatches(20, **data["training"]))

# %%
# The file
# --------
#
# It has all layers that the predictions depend on. What is for training alone, such as
# dropout and the loss, is left out.

file = args.output_dir / "onnx_runtime.onnx"
bs.tools.export_onnx(network, file)
print(f"{file}: {file.stat().st_size} bytes")

# %%
# Elsewhere
# ---------
#
# From here on, brainstorm is only used to compare. Inputs have the shape (time, batch,
# features...), as here, and keep their names.

session = onnxruntime.InferenceSession(file)
for kind, values in (
    ("input", session.get_inputs()),
    ("output", session.get_outputs()),
):
    for value in values:
        print(f"{kind} {value.name}: {value.type}, {value.shape}")

images, digits = data["test"]["default"][:], data["test"]["targets"][0, :, 0]
[there] = session.run(None, {"default": images.astype(np.float32)})
here = network.predict(images)
print(f"largest difference: {np.abs(there - here).max():.1e}")

# %%
# A picture
# ---------

figure, axes = plt.subplots(2, 5, figsize=(10, 4), height_ratios=(3, 2))
for column, (above, below) in enumerate(axes.T):
    above.imshow(images[0, column, ..., 0], cmap="gray_r")
    above.set_axis_off()
    below.bar(np.arange(10) - 0.2, here[0, column], 0.4, label="brainstorm")
    below.bar(np.arange(10) + 0.2, there[0, column], 0.4, label="ONNX Runtime")
    below.set(xticks=range(10), ylim=(0, 1.05))
axes[0, 2].set_title("probabilities of the digits")
axes[1, 0].legend(fontsize="small")
figure.tight_layout()
figure.savefig(args.output_dir / "onnx_runtime.png", dpi=120)

# %%
# The result
# ----------

accuracy = np.mean(there[0].argmax(axis=1) == digits)
print(f"test accuracy of ONNX Runtime: {accuracy:.3f}")
