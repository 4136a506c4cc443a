import json

import numpy as np
import pytest
from fake_clips import dataset, row, truth_source

from bi_audio_dataset import captioning
from bi_audio_dataset.caption_models import ClipMedia
from bi_audio_dataset.captioning import (
    CaptioningConfig,
    caption_clip,
    caption_folder,
    clips_to_caption,
    import_captions,
    load_captions,
    load_queue,
    main,
    read_media,
)
from bi_audio_dataset.clip_rows import ClipFolder
from bi_audio_dataset.review import evidence
from bi_audio_dataset.schema import UserError

BELL = "Visible sound: a bell, Invisible sound: none"
CLIP = ClipMedia(np.zeros((2, 4, 4, 3), np.uint8), 2.0, np.zeros(16000, np.float32))
CONFIG = CaptioningConfig()


class Script:
    """Both models: says what it is told and notes what it was asked."""

    name = "script"

    def __init__(self, answers):
        self.answers, self.heard, self.asked = list(answers), [], []

    def describe(self, clip, seed, temperature):
        self.heard.append((seed, temperature))
        return f"description {len(self.heard)}"

    def condense(self, description, refused, seed, temperature):
        self.asked.append((description, refused, seed, temperature))
        return self.answers.pop(0)


def ask(answers, clip_id="a", config=CONFIG):
    script = Script(answers)
    return script, caption_clip(clip_id, CLIP, script, script, config)


def test_a_good_answer_is_taken_at_once():
    script, outcome = ask([f'"{BELL}."'])
    assert outcome.caption == BELL
    assert len(outcome.attempts) == 1 and outcome.attempts[0].raw == f'"{BELL}."'
    assert script.asked[0][1] is None and script.asked[0][3] == 0.0


def test_a_malformed_answer_is_asked_again_strictly_warmer_and_with_another_seed():
    script, outcome = ask(["A bell rings.", BELL])
    assert outcome.caption == BELL
    (_, first, seed, cold), (_, second, another, warm) = script.asked
    assert first is None and "not of the form" in second
    assert seed != another and cold == 0.0 < warm
    assert len(script.heard) == 1
    assert [attempt.problem is None for attempt in outcome.attempts] == [False, True]


def test_from_the_third_attempt_on_the_clip_is_described_anew():
    script, outcome = ask(["no", "no", BELL])
    assert outcome.caption == BELL
    assert [asked[0] for asked in script.asked] == ["description 1", "description 1", "description 2"]
    assert script.heard[0] != script.heard[1]


def test_no_answer_in_all_attempts():
    nothing = "Visible sound: none, Invisible sound: none"
    script, outcome = ask(["no", nothing, "Visible sound: <>", "no"])
    assert outcome.caption is None
    assert len(outcome.attempts) == len(CONFIG.temperatures) == 4 and script.answers == []
    assert outcome.attempts[1].problem == "it names no sound at all"


def test_seeds_depend_on_the_clip_and_the_seed_alone():
    def seeds(**options):
        return [asked[2] for asked in ask(["no"] * 4, **options)[0].asked]

    assert seeds() == seeds()
    assert len({*seeds(), *seeds(clip_id="b"), *seeds(config=CaptioningConfig(seed=1))}) == 12


@pytest.fixture
def clips(tmp_path):
    known = row("known", caption=BELL)
    known["truth"]["sources"] = [truth_source()]
    silent = row("silent", caption="Visible sound: none, Invisible sound: none")
    silent["truth"]["sources"] = [truth_source()]
    return ClipFolder(
        dataset(tmp_path / "set", [row("a"), row("b"), known, row("own", caption=BELL), silent])
    )


def test_clips_with_truth_or_a_caption_of_their_own_need_none(clips):
    assert clips_to_caption(clips) == ["a", "b"]


def test_a_model_that_fails_ends_the_run_and_what_was_written_stays(clips):
    class Full(Script):
        def describe(self, clip, seed, temperature):
            if len(self.heard) == 1:
                raise UserError("model 'x' needs more memory than cuda has free")
            return super().describe(clip, seed, temperature)

    script = Full([BELL, BELL])
    with pytest.raises(UserError, match="failed at 'b' .model 'x' needs more memory .*: captions so far are"):
        caption_folder(clips, ["a", "b"], script, script, CONFIG)
    assert load_captions(clips.folder) == {"a": BELL} and load_queue(clips.folder) == {}
    assert clips_to_caption(clips) == ["b"]


def test_success_and_queue_end_in_their_files(clips):
    script = Script([BELL, "no", "nay", "never", "no\nreally"])
    tally = caption_folder(clips, ["a", "b"], script, script, CONFIG)
    assert (tally.captioned, tally.queued) == (1, 1)
    assert load_captions(clips.folder) == {"a": BELL}
    assert load_queue(clips.folder) == {"b": "4 answers, none of them a caption"}
    queued = json.loads((clips.folder / captioning.QUEUE_FILE).read_text())
    assert [attempt["raw"] for attempt in queued["attempts"]] == ["no", "nay", "never", "no\nreally"]
    assert all(attempt["problem"] and attempt["description"] for attempt in queued["attempts"])
    written = json.loads((clips.folder / captioning.CAPTIONS_FILE).read_text())
    assert written["by"] == "model" and written["model"] == "script + script" and written["attempts"] == 1
    # neither is asked for again, the queued one only on demand; a caption then takes it off the queue
    assert clips_to_caption(clips) == []
    assert clips_to_caption(clips, retry_queued=True) == ["b"]
    again = Script([BELL])
    caption_folder(clips, ["b"], again, again, CONFIG)
    assert load_queue(clips.folder) == {} and set(load_captions(clips.folder)) == {"a", "b"}


def test_a_clip_that_does_not_decode_is_queued_and_the_others_go_on(tmp_path):
    broken = row("a")
    broken["video"]["bytes"] = b"no video"
    clips = ClipFolder(dataset(tmp_path, [broken, row("b")]))
    script = Script([BELL])
    tally = caption_folder(clips, ["a", "b"], script, script, CONFIG)
    assert (tally.captioned, tally.queued) == (1, 1)
    assert "clip.mp4" in load_queue(tmp_path)["a"]


def test_what_the_listener_is_given(clips):
    clip = read_media(clips.row("a"), fps=5.0)
    assert clip.frames.shape == (4, 36, 64, 3)
    # frames at 0, 0.2, 0.4, 0.6 s of a picture that brightens by 8 levels in 40 ms
    assert clip.frames.mean(axis=(1, 2, 3)) == pytest.approx([0, 40, 80, 120], abs=4)
    assert clip.audio.shape == (12800,) and np.abs(clip.audio).max() == pytest.approx(0.1, rel=0.4)


def test_another_rendering_of_a_clip_needs_another_caption(clips):
    script = Script([BELL, "no", "no", "no", "no"])
    caption_folder(clips, ["a", "b"], script, script, CONFIG)
    field = np.zeros((4, 4410), np.float32)
    for clip_id in "ab":
        evidence.save(
            clips.folder, clip_id, evidence.collect(np.zeros((8, 16, 3), np.uint8), field, 44100, render=1)
        )
    assert load_captions(clips.folder) == {} and load_queue(clips.folder) == {}
    assert clips_to_caption(clips) == ["a", "b"]
    other = BELL.replace("bell", "drum")
    script = Script([other])
    caption_folder(clips, ["a"], script, script, CONFIG)
    assert load_captions(clips.folder) == {"a": other}


def test_a_users_file_is_taken_whole_or_not_at_all(clips, tmp_path, capsys):
    file = tmp_path / "mine.csv"
    file.write_text(f'id,caption\na,"{BELL}"\nghost,"{BELL}"\n')
    assert main([str(clips.folder), "--from", str(file)]) == 2
    out, err = capsys.readouterr()
    assert err == "mine.csv:3: unknown id 'ghost': no clip of this dataset has it\n"
    assert "0 captions taken, 1 rows refused" in out
    assert load_captions(clips.folder) == {}
    assert main([str(clips.folder), "--from", str(file), "--skip-bad"]) == 2
    assert load_captions(clips.folder) == {"a": BELL}
    # the same file again writes nothing, another caption replaces the first
    assert import_captions(clips, file, skip_bad=True)[0] == 0
    other = BELL.replace("bell", "drum")
    file.write_text(f'id,caption\na,"{other}"\n')
    assert main([str(clips.folder), "--from", str(file)]) == 0
    assert load_captions(clips.folder) == {"a": other}
    assert clips_to_caption(clips) == ["b"]


def test_a_malformed_line_in_the_captions_is_named(clips):
    (clips.folder / captioning.CAPTIONS_FILE).write_text('{"id": "a", "caption": "a bell"}\n')
    with pytest.raises(UserError, match=r"captions\.jsonl:1: it is not of the form"):
        load_captions(clips.folder)


def test_the_command_runs_the_models_over_what_needs_them(clips, capsys, monkeypatch):
    from bi_audio_dataset import caption_models

    script, made = Script([BELL]), []

    def make(config):
        made.append(config)
        return script

    monkeypatch.setattr(caption_models, "OmniListener", make)
    monkeypatch.setattr(caption_models, "InstructCondenser", make)
    flags = ["--listener", "there", "--condenser", "here", "--device", "cpu", "--dtype", "float32"]
    assert main([str(clips.folder), *flags, "--seed", "3", "--limit", "1"]) == 0
    assert "1 captioned, 0 queued for review, 1 left for another run" in capsys.readouterr().out
    assert made == [caption_models.ModelConfig("there", "here", "cpu", "float32")] * 2
    assert script.asked == ask([BELL], config=CaptioningConfig(seed=3))[0].asked
    script.answers = ["no"] * 4 + [BELL]
    assert main([str(clips.folder)]) == 0
    assert "0 captioned, 1 queued" in capsys.readouterr().out
    assert main([str(clips.folder)]) == 0
    assert "no clip needs a caption, 1 are queued for review" in capsys.readouterr().out
    assert main([str(clips.folder), "--retry-queued"]) == 0
    assert set(load_captions(clips.folder)) == {"a", "b"}


def test_where_nothing_needs_a_caption_no_model_is_loaded(tmp_path, capsys, monkeypatch):
    from bi_audio_dataset import caption_models

    monkeypatch.setattr(caption_models, "OmniListener", lambda config: pytest.fail("loaded"))
    dataset(tmp_path, [row("a", caption=BELL)])
    assert main([str(tmp_path)]) == 0
    assert "no clip needs a caption" in capsys.readouterr().out


def test_flags_that_make_no_sense(tmp_path, capsys):
    for flags in (["--skip-bad"], ["--limit", "0"], ["--lim", "1"]):
        with pytest.raises(SystemExit) as end:
            main([str(tmp_path), *flags])
        assert end.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("kind", ["torch.OutOfMemoryError", "RuntimeError", "MemoryError"])
def test_a_model_that_fails_is_one_line_and_what_is_written_stays(kind, clips, monkeypatch, capsys):
    """Out of memory at the second clip; the same command then goes on after the first."""
    from bi_audio_dataset import caption_models
    from bi_audio_dataset.__main__ import main as program

    failure = {"RuntimeError": RuntimeError, "MemoryError": MemoryError}.get(kind)
    if failure is None:
        failure = pytest.importorskip("torch").OutOfMemoryError

    class Fails(Script):
        def describe(self, clip, seed, temperature):
            if len(self.heard) == 1:
                raise failure("CUDA out of memory.\nTried to allocate 2 GiB")
            return super().describe(clip, seed, temperature)

    monkeypatch.setattr(caption_models, "OmniListener", lambda config: Fails([]))
    monkeypatch.setattr(caption_models, "InstructCondenser", lambda config: Script([BELL] * 2))
    assert program(["caption", str(clips.folder)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(lines) == 1 and "Traceback" not in lines[0]
    assert "the models failed at 'b' (CUDA out of memory. Tried to allocate 2 GiB)" in lines[0]
    assert load_captions(clips.folder) == {"a": BELL} and load_queue(clips.folder) == {}
    monkeypatch.setattr(caption_models, "OmniListener", lambda config: Script([]))
    assert program(["caption", str(clips.folder)]) == 0
    assert load_captions(clips.folder) == {"a": BELL, "b": BELL}
