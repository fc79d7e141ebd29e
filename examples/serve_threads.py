"""Answer requests by a network, in several threads
=================================================

A network that is trained and saved is loaded by a web server, which answers each
request in a thread of its own. Threads can share a network: their predictions take
turns, and each finds the network as if it were alone. Here the clients are threads of
the same program, which ask about the test images; with ``--stay`` the server then goes
on until Ctrl-C.
"""

import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import matplotlib
import numpy as np
from common import load_data, parse_arguments

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import brainstorm as bs

args = parse_arguments(__doc__, epochs=5, stay="go on serving until Ctrl-C")

# %%
# The network
# -----------

data = load_data(args.data, "Digits")
image_shape = data["training"]["default"].shape[2:]

inp, out = bs.tools.get_in_out_layers("classification", image_shape, 10)
network = bs.Network.from_layer(
    inp >> bs.layers.FullyConnected(100, name="Hidden") >> out
)
network.output_name = "Output.outputs.predictions"
if args.gpu:
    network.set_handler(bs.handlers.PyCudaHandler())
network.initialize("he")

trainer = bs.Trainer(bs.training.AdamStepper(0.003))
trainer.add_hook(bs.hooks.StopAfterEpoch(args.epochs))
trainer.train(network, bs.Minibatches(20, **data["training"]))
file = args.output_dir / "serve_threads.hdf5"
network.save_as_hdf5(str(file))

# %%
# The server
# ----------
#
# It loads the network once. A request is a list of images in JSON, and the answer a
# list of digits; images that do not fit are answered by what is wrong with them.

served = bs.Network.from_hdf5(str(file))


class DigitReader(BaseHTTPRequestHandler):
    """Answers images by digits."""

    def do_POST(self):
        """Read what was sent, and reply."""
        length = int(self.headers["Content-Length"])
        try:
            images = np.array(json.loads(self.rfile.read(length)), np.float32)
            answer = served.predict(images).argmax(axis=-1).tolist()
            status = 200
        except ValueError as error:
            answer, status = str(error), 400
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        """Print no line for each request."""


server = ThreadingHTTPServer(("127.0.0.1", 0), DigitReader)
thread = threading.Thread(target=server.serve_forever)
thread.start()

# %%
# Clients
# -------
#
# Eight threads send requests of different size, all at the same time.


def ask(images):
    """The digits that the server takes images for."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.server_port}", json.dumps(images.tolist()).encode()
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


images, digits = data["test"]["default"][0], data["test"]["targets"][0, :, 0]
places = np.cumsum(np.random.RandomState(1).randint(1, 20, size=25))
requests = [part for part in np.split(images, places) if len(part)]
with ThreadPoolExecutor(8) as threads:
    answers = list(threads.map(ask, requests))
print(f"{len(answers)} requests with {sum(map(len, answers))} images were answered")

if args.stay:
    print(f"serving at http://127.0.0.1:{server.server_port} until Ctrl-C")
    threading.Event().wait()
server.shutdown()
server.server_close()
thread.join()

# %%
# A picture
# ---------

figure, axes = plt.subplots(2, 8, figsize=(8, 2.6), layout="constrained")
answers = np.concatenate(answers)
for ax, image, answer, digit in zip(axes.flat, images, answers, digits, strict=False):
    ax.imshow(image[..., 0], cmap="gray_r")
    ax.set_title(answer, color="C0" if answer == digit else "C3")
    ax.set_axis_off()
figure.savefig(args.output_dir / "serve_threads.png", dpi=120)

# %%
# The result
# ----------

print(f"right answers: {np.mean(answers == digits):.3f}")
