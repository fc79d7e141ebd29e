"""
Use a network elsewhere, by ONNX
================================

An exported network needs this library no more: here ONNX Runtime computes it. Needs
``pip install ".[onnx]"`` in the folder of a clone.
"""

import matplotlib.pyplot as plt
import numpy as np

import brainstorm as bs

bs.global_rnd.set_seed(1)
t = np.linspace(0, 20, 200).reshape(-1, 1, 1)
wave = np.sin(t) * np.sin(0.3 * t)
net = bs.tools.create_net_from_spec("regression", 1, 1, "L20")
bs.Trainer.fit(
    net, wave[:-1], wave[1:], epochs=150, stepper=bs.training.AdamStepper(0.01)
)
ours = net.predict(wave)

# %%
# The file has the layers up to the output, and the parameters.

try:
    import onnxruntime
except ImportError:
    print("ONNX Runtime is not installed here")
    theirs = ours
else:
    bs.tools.export_onnx(net, "wave.onnx")
    session = onnxruntime.InferenceSession("wave.onnx")
    (name,) = [node.name for node in session.get_inputs()]
    (theirs,) = session.run(None, {name: wave.astype(np.float32)})
    print(f"largest difference below 1e-5: {abs(ours - theirs).max() < 1e-5}")

# %%

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
figure.suptitle("A wave, and what both libraries foresee of it")
ax.plot(wave[1:, 0, 0], "0.7", linewidth=5, label="next value")
ax.plot(ours[:-1, 0, 0], label="brainstorm")
ax.plot(theirs[:-1, 0, 0], "k:", label="ONNX Runtime")
ax.legend()
