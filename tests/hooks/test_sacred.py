import json

import pytest

from brainstorm.hooks import InfoUpdater, MonitorLoss, StopAfterEpoch
from brainstorm.training import SgdStepper, Trainer

# Sacred's own imports are not the business of these tests.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_info_of_a_run_has_the_logs(net, batches, tmp_path):
    sacred = pytest.importorskip("sacred")
    from sacred.observers import FileStorageObserver

    experiment = sacred.Experiment("training", save_git_info=False)
    experiment.observers.append(FileStorageObserver(tmp_path))

    @experiment.main
    def train(_run):
        trainer = Trainer(SgdStepper(0.01))
        for hook in (MonitorLoss("batches"), InfoUpdater(_run), StopAfterEpoch(2)):
            trainer.add_hook(hook)
        trainer.train(net, batches, batches=batches)
        return trainer.logs

    run = experiment.run()
    assert run.status == "COMPLETED"
    counts = {"nr_parameters": 2 * 3 + 2, "epoch_nr": 2, "update_nr": 6}
    assert run.info == {**counts, "logs": run.result}
    assert len(run.result["MonitorLoss"]["total_loss"]) == 3
    (file,) = tmp_path.glob("*/info.json")
    assert json.loads(file.read_text())["logs"] == run.result
