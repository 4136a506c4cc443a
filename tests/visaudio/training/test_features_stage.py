"""The features stage of a training, on parts that its earlier stages have left."""

import pytest
from micro import micro_components
from safetensors.torch import save_file

from bi_audio_dataset.schema import UserError
from visaudio.data.feature_store import FeatureDataset
from visaudio.training import stages
from visaudio.training.full_run import FullRun, plan
from visaudio.training.recipe import DataConfig, TrainConfig
from visaudio.training.stages import Plan, Stage


def save_parts(root, seed: int = 0) -> None:
    model = micro_components(seed)
    for part in ("codec", "clip", "synchformer"):
        (root / part).mkdir(exist_ok=True)
        state = {name: value.contiguous() for name, value in getattr(model, part).state_dict().items()}
        save_file(state, root / part / "model.safetensors")


@pytest.fixture
def config(tmp_path, fake_biaudio) -> TrainConfig:
    save_parts(tmp_path)
    data = DataConfig(path=str(fake_biaudio))
    return TrainConfig(output=str(tmp_path), workers=1, data=data, model=micro_components().preset)


@pytest.mark.slow
def test_the_stage_makes_what_the_flow_takes_and_no_other(config, tmp_path):
    run = FullRun(config)
    assert run.features(tmp_path / "features")
    data = FeatureDataset(tmp_path / "features")
    assert len(data) == 3 and data.made_from["weights"] == run.feature_parts().made_from()["weights"]
    save_parts(tmp_path, seed=1)
    with pytest.raises(UserError, match="other weights or settings of codec, clip, synchformer than"):
        run.flow(tmp_path / "flow")
    with pytest.raises(UserError, match="holds features of other weights or settings"):
        run.features(tmp_path / "features")


def test_every_process_joins_the_stage_unless_it_is_finished(config, tmp_path, monkeypatch):
    assert plan(config).stages["features"].parallel
    monkeypatch.setattr(stages, "RANK", 1)
    joined = []

    def made_plan(finished: bool) -> Plan:
        def run(folder):
            joined.append(folder.name)
            whole._write(stage, True, 0.0)  # as the first process does in the end
            return True

        stage = Stage("features", "", run, {}, 1.0, parallel=True)
        whole = Plan(tmp_path, [stage])
        (tmp_path / "features").mkdir(exist_ok=True)
        whole._write(stage, finished, 0.0)
        return whole

    for finished, times in ((False, 1), (True, 1)):
        whole = made_plan(finished)
        assert whole.execute(whole.select(None)) and len(joined) == times
