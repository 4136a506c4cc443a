"""Models to and from a Hub over a real socket: push, pull by revision, refusals, broken lines, no line.

The server speaks the Hub's protocol (tests/hub_server.py); whoever asks is a process of its own
(tests/hub_client.py), as huggingface_hub reads its environment when it is imported.
"""

import json
import re
import shlex

import pytest
from hub_world import COMMON, TOKEN
from micro import write_clip
from published import torch_file

from visaudio import licences

pytestmark = pytest.mark.slow
MAKE = (
    COMMON
    + """
import torch
from published import published_preset
torch.manual_seed(seed)
made = hub.build_components(published_preset())
made.info = hub.ModelInfo(provenance="made in a test", limits="knows nothing", training={"steps": seed})
hub.save_pretrained(folder, made, max_shard_size=size)
result = digest(made)
"""
)
PUSH = COMMON + "result = hub.push_to_hub(folder, name, **more)"
LOAD = COMMON + "result = digest(hub.load_pretrained(name, cache_dir=cache, **more))"
FIND = COMMON + "result = str(hub.find_model(name, cache_dir=cache, **more))"


@pytest.fixture(scope="module")
def model(world):
    """A model folder: clip and synchformer referenced, the network in three shards; its digest."""
    folder = world.root / "model"
    made = world.right(MAKE, folder=folder, seed=0, size="150KB")
    return folder, made


@pytest.fixture(scope="module")
def pushed(world, model):
    assert world.right(PUSH, folder=model[0], name="ann/m").startswith(f"{world.hub.url}/ann/m/commit/")
    return world.hub.repositories["models", "ann/m"]


# -------------------- what arrives


def test_published_parts_are_named_not_copied(model):
    folder, _ = model
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "codec.safetensors",
        "config.json",
        *(f"network-0000{shard}-of-00003.safetensors" for shard in (1, 2, 3)),
        "network.safetensors.index.json",
    ]
    config = json.loads((folder / "config.json").read_text())
    (clip,) = config["references"]["clip"]
    assert clip["repository"] == "pub/clip" and set(clip["files"]) == {"open_clip.bin"}
    assert clip["licence"] == "apple-amlr"  # as its card says
    (synchformer,) = config["references"]["synchformer"]
    assert synchformer["licence"] == "cc-by-nc-4.0"  # it has no card here; MMAudio's is known
    assert config["licence"] == "apple-amlr AND cc-by-nc-4.0" and config["info"]["licence"] == "apache-2.0"
    assert set(config["sha256"]) == {f.name for f in folder.iterdir()} - {"README.md", "config.json"}


def test_a_push_is_one_commit_of_the_models_files(world, model, pushed):
    folder, _ = model
    (commit,) = pushed.log
    assert {name for _, name in commit} == {file.name for file in folder.iterdir()}
    assert {kind for kind, name in commit if name.endswith(".safetensors")} == {"lfsFile"}
    for file in folder.iterdir():
        if file.name != "README.md":
            assert pushed.files[file.name] == file.read_bytes()
    card = pushed.files["README.md"].decode()
    assert "license: other\nlicense_name: apple-amlr-and-cc-by-nc-4.0\n" in card
    assert 'ViSAudio.from_pretrained("ann/m")' in card and "path/to" not in card
    for line in ("- clip, pub/clip: apple-amlr", "No commercial use.", "- steps: 0", "made in a test"):
        assert line in card


def test_what_is_pulled_is_what_was_pushed(world, model, pushed):
    assert world.right(LOAD, name="ann/m") == model[1]


def test_revisions_are_other_weights(world, model, pushed):
    first, folder = pushed.refs["main"], world.root / "second"
    second = world.right(MAKE, folder=folder, seed=1, size="5GB")
    more = {"revision": "v2", "message": "second"}
    assert "/commit/" in world.right(PUSH, folder=folder, name="ann/m", more=more)
    assert set(pushed.at("v2")) == {"README.md", "config.json", "codec.safetensors", "network.safetensors"}
    assert pushed.at("main") == pushed.commits[first]  # another branch's shards stay
    card = pushed.at("v2")["README.md"].decode()
    assert 'from_pretrained("ann/m", revision="v2")' in card and "--variant ann/m --revision v2" in card
    pushed.refs["tagged"] = first
    assert second != model[1]
    for revision, expected in (
        ("v2", second),
        (pushed.refs["v2"], second),
        ("tagged", model[1]),
        (first, model[1]),
        (None, model[1]),
    ):
        assert world.right(LOAD, name="ann/m", more={"revision": revision}) == expected
    assert "no such revision" in world.wrong(LOAD, name="ann/m", more={"revision": "v9"})
    assert "revision ('v2') is for a Hub repository" in world.wrong(
        LOAD, name=str(folder), more={"revision": "v2"}
    )


def test_shards_of_an_earlier_push_go_and_other_files_stay(world, model):
    repository = world.hub.make("ann/again")
    repository.put({"LICENSE": b"theirs", "clip.safetensors": b"old", "samples/network.safetensors": b"x"})
    world.right(PUSH, folder=model[0], name="ann/again")
    names = {file.name for file in model[0].iterdir()}
    assert set(repository.files) == names | {"LICENSE", "samples/network.safetensors"}
    world.right(PUSH, folder=world.root / "second", name="ann/again")
    assert "network.safetensors" in repository.files and len(repository.files) == 6
    assert world.right(LOAD, name="ann/again") != model[1]


def test_the_commands_of_the_card_are_true(world, pushed):
    card, here = pushed.files["README.md"].decode(), world.root / "use"
    here.mkdir()
    write_clip(here / "clip.mp4", 0.4)
    (python,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    (bash,) = re.findall(r"```bash\n(.*?)```", card, re.DOTALL)
    world.right("os.chdir(here)\n" + python, here=here)
    assert (here / "clip.flac").stat().st_size > 1000
    program, *arguments = shlex.split(bash)
    assert program == "visaudio-sample"
    code = "from visaudio.cli import sample\nresult = sample.main(arguments)"
    assert world.right(code, arguments=[*arguments, "--num_steps", "1"]) == 0
    assert (here / "clip.binaural.flac").is_file() and (here / "clip.binaural.mp4").is_file()
    more = ["--num_steps", "1", "--overwrite", "--revision"]
    assert world.right(code, arguments=[*arguments, *more, "v2"]) == 0
    answer = world.run(code, arguments=[*arguments, *more, "v9"])
    assert answer.value == 2 and answer.output.startswith("error: model 'ann/m' at revision 'v9'")
    assert answer.output.count("\n") == 1


def test_a_private_repository_by_the_command_line(world, model):
    code = COMMON + "result = hub.main(arguments)"
    answer = world.run(code, arguments=["push", str(model[0]), "ann/own", "--private", "--message", "words"])
    assert answer.value == 0 and answer.output.startswith(world.hub.url)
    assert world.hub.repositories["models", "ann/own"].private
    assert world.right(LOAD, name="ann/own") == model[1]
    line = world.wrong("del os.environ['HF_TOKEN']\n" + FIND, name="ann/own", cache=world.root / "none")
    assert "no such Hub repository, or it is private: log in" in line
    line = world.wrong(PUSH, folder=model[0], name="ann/own")
    assert line.startswith("cannot push to 'ann/own': the Hub refuses it (401): log in")
    world.right("os.environ['HF_TOKEN'] = token", token=TOKEN)


# -------------------- what is refused


def test_gated_repositories_say_what_to_do(world, pushed):
    gated = world.hub.make("ann/gated", gated=True)
    gated.put(pushed.files)
    find = {"name": "ann/gated", "cache": world.root / "gated"}
    for token in ("hf_stranger2", TOKEN, None):  # one nobody knows, one without the right, none
        world.right("os.environ.pop('HF_TOKEN', None)\nif token: os.environ['HF_TOKEN'] = token", token=token)
        line = world.wrong(FIND, **find)
        assert "gated: accept its terms" in line or (token == "hf_stranger2" and "log in" in line)
    world.right("os.environ['HF_TOKEN'] = 'hf_friend'")
    assert world.right(FIND, **find).endswith(gated.refs["main"])
    world.right("os.environ['HF_TOKEN'] = token", token=TOKEN)


def test_what_is_not_there_is_named(world, pushed):
    line = world.wrong(FIND, name="ann/none")
    assert line.startswith("model 'ann/none'") and "no such Hub repository" in line
    world.hub.make("ann/other").put({"README.md": b"about cats"})
    assert "holds no config.json, so it is not a visaudio model" in world.wrong(FIND, name="ann/other")
    lacking = dict(pushed.files)
    del lacking["network-00002-of-00003.safetensors"]
    world.hub.make("ann/lacking").put(lacking)
    assert "lacks network-00002-of-00003.safetensors" in world.wrong(LOAD, name="ann/lacking")


def test_another_file_than_the_checksum_says_is_refused(world, pushed):
    files = dict(pushed.files)
    content = bytearray(files["codec.safetensors"])
    content[-1] ^= 1
    world.hub.make("ann/changed").put({**files, "codec.safetensors": bytes(content)})
    assert "codec.safetensors: is not the file that config.json was written with" in world.wrong(
        LOAD, name="ann/changed"
    )


def test_a_push_of_what_is_not_whole_is_refused(world, model, tmp_path):
    import shutil

    def copied(name):
        return shutil.copytree(model[0], tmp_path / name)

    asked = len(world.hub.requests)
    folder = copied("lacking")
    (folder / "network-00003-of-00003.safetensors").unlink()
    assert "lacks network-00003-of-00003" in world.wrong(PUSH, folder=folder, name="ann/x")
    folder = copied("no-index")
    (folder / "network.safetensors.index.json").unlink()
    assert "lacks network.safetensors" in world.wrong(PUSH, folder=folder, name="ann/x")
    folder = copied("no-card")
    (folder / "README.md").unlink()
    assert "lacks README.md; `python -m visaudio.hub card" in world.wrong(PUSH, folder=folder, name="ann/x")
    folder = copied("free")
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n" + card.split("---\n", 2)[2])
    line = world.wrong(PUSH, folder=folder, name="ann/x")
    assert "says licence mit, but the weights inherit apple-amlr AND cc-by-nc-4.0" in line
    folder = copied("careless")
    (folder / "README.md").write_text(card + f"\nfetch it with {TOKEN}\n")
    assert "holds your access token" in world.wrong(PUSH, folder=folder, name="ann/x")
    assert "expected OWNER/NAME" in world.wrong(PUSH, folder=model[0], name="x")
    assert "only what lies here can be pushed" in world.wrong(PUSH, folder="ann/m", name="ann/x")
    assert len(world.hub.requests) == asked  # the Hub was never asked
    folder = copied("dangling")
    text = (folder / "config.json").read_text()
    commit = json.loads(text)["references"]["clip"][0]["revision"]
    (folder / "config.json").write_text(text.replace(commit, "ab" * 20))
    assert "reference pub/clip@abababab:open_clip.bin: the repository has no such revision" in world.wrong(
        PUSH, folder=folder, name="ann/x"
    )
    assert ("models", "ann/x") not in world.hub.repositories


# -------------------- references


def test_a_reference_stays_at_its_commit(world, model, pushed):
    clip = world.hub.repositories["models", "pub/clip"]
    before = clip.refs["main"]
    clip.put({"open_clip.bin": b"something newer"})
    assert world.right(LOAD, name="ann/m", cache=world.root / "fresh") == model[1]
    clip.refs["main"] = before


def test_a_referenced_file_that_is_another_is_refused(world, pushed):
    clip = world.hub.repositories["models", "pub/clip"]
    files = clip.files
    content = files["open_clip.bin"]
    files["open_clip.bin"] = content[:-1] + b"?"  # at the very same commit
    find = {"name": "ann/m", "cache": world.root / "spoilt"}
    line = world.wrong(LOAD, **find)
    assert "pub/clip@" in line and "is not the file that config.json references" in line
    line = world.wrong(PUSH, folder=world.root / "model", name="ann/y")
    assert line.endswith("the Hub has no such open_clip.bin at that commit")
    del files["open_clip.bin"]
    assert "the repository holds no such file" in world.wrong(LOAD, name="ann/m", cache=world.root / "gone")
    files["open_clip.bin"] = content


def test_code_in_a_referenced_pickle_is_not_run(world, model, tmp_path):
    class Code:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'it_ran')!r}, 'w')",)

    evil = world.hub.make("pub/evil")
    content = torch_file({"a": Code()})
    commit = evil.put({"open_clip.bin": content})
    folder = tmp_path / "evil"
    world.right("import shutil\nshutil.copytree(a, b)", a=model[0], b=folder)
    config = json.loads((folder / "config.json").read_text())
    import hashlib

    sums = {"open_clip.bin": hashlib.sha256(content).hexdigest()}
    config["references"]["clip"][0] |= {"repository": "pub/evil", "revision": commit, "files": sums}
    (folder / "config.json").write_text(json.dumps(config))
    line = world.wrong(LOAD, name=str(folder))
    assert "cannot be read as weights of CLIP" in line and not (tmp_path / "it_ran").exists()


def test_files_that_one_has_are_taken_where_they_are_the_referenced_ones(world, model, tmp_path):
    clip = world.hub.repositories["models", "pub/clip"].files["open_clip.bin"]
    (tmp_path / "mine.bin").write_bytes(clip)
    (tmp_path / "other.bin").write_bytes(clip + b"\0")
    asked = len(world.hub.asked("pub/clip", "HEAD"))
    load = {"name": "ann/m", "cache": tmp_path / "cache"}
    own = world.right(LOAD, more={"overrides": {"clip": str(tmp_path / "mine.bin")}}, **load)
    assert own == model[1] and len(world.hub.asked("pub/clip", "HEAD")) == asked
    line = world.wrong(LOAD, more={"overrides": {"clip": str(tmp_path / "other.bin")}}, **load)
    assert "other.bin: is not what" in line and "pub/clip@" in line and "its SHA-256 is another" in line


def test_copies_on_request_and_where_weights_have_changed(world, tmp_path):
    code = COMMON + (
        "import torch\nfrom published import published_preset\n"
        "made = hub.build_components(published_preset())\n"
        "if tuned: next(made.clip.parameters()).data.add_(1)\n"
        "hub.save_pretrained(folder, made, references=references)\n"
        "again = hub.load_pretrained(folder)\n"
        "result = [digest(made) == digest(again), sorted(again.references), again.preset.clip.weights]"
    )
    tuned = world.right(code, folder=tmp_path / "tuned", tuned=True, references=True)
    assert tuned == [True, ["synchformer"], None] and (tmp_path / "tuned/clip.safetensors").is_file()
    copied = world.right(code, folder=tmp_path / "copied", tuned=False, references=False)
    assert copied == [True, [], None] and (tmp_path / "copied/synchformer.safetensors").is_file()
    text = (tmp_path / "copied/config.json").read_text()
    assert "open_clip.bin" not in text and "sync.pth" not in text
    stated = [
        json.loads((tmp_path / name / "config.json").read_text())["info"]["licence"]
        for name in ("tuned", "copied")
    ]
    assert stated == ["apple-amlr", "apple-amlr AND cc-by-nc-4.0"]  # a copy, changed or not, is still theirs
    again = COMMON + (
        "loaded = hub.load_pretrained(name)\nhub.save_pretrained(folder, loaded)\n"
        "result = sorted(hub.load_pretrained(folder).references)"
    )
    assert world.right(again, name="ann/m", folder=tmp_path / "again") == ["clip", "synchformer"]


# -------------------- lines that break, or are not there


def test_a_broken_download_goes_on_where_it_stopped(world, model, pushed):
    name = "network-00002-of-00003.safetensors"
    world.hub.cuts[name] = 50_000
    asked = len(world.hub.requests)
    # the real piece is 10 MB: what a broken connection has brought of the last one is lost
    world.right("from huggingface_hub import constants\nconstants.DOWNLOAD_CHUNK_SIZE = 10_000")
    assert world.right(LOAD, name="ann/m", cache=world.root / "cut") == model[1]
    ranges = [ranged for _, _, ranged in world.hub.requests[asked:] if ranged is not None]
    assert ranges == ["bytes=50000-"] and world.hub.cuts == {}


def test_shards_that_have_come_are_not_fetched_again(world, model, pushed):
    cache = world.root / "partly"
    world.hub.fails["resolve/" + pushed.refs["main"] + "/network-00003"] = 500
    line = world.wrong(LOAD, name="ann/m", cache=cache)
    assert "the Hub fails (status 500)" in line or "it answers with status 500" in line
    world.hub.fails.clear()
    got = {path.name for path in cache.rglob("*.safetensors")}
    asked = len(world.hub.requests)
    assert world.right(LOAD, name="ann/m", cache=cache) == model[1]
    fetched = [path for verb, path, _ in world.hub.requests[asked:] if verb == "GET" and "/cdn/" in path]
    referenced = 2  # CLIP and Synchformer come after
    assert got and len(fetched) == 4 - len(got) + referenced


def test_without_a_line_the_cache_serves(world, model, pushed):
    world.right(LOAD, name="ann/m")
    assert world.right(LOAD, "offline", name="ann/m") == model[1]
    line = world.wrong(LOAD, "offline", name="ann/m", cache=world.root / "empty")
    assert "not in the local cache, and the Hub cannot be reached (HF_HUB_OFFLINE" in line
    world.hub.close()
    try:
        world.right("from huggingface_hub import close_session\nclose_session()")
        assert world.right(LOAD, name="ann/m") == model[1]
        line = world.wrong(LOAD, name="ann/m", cache=world.root / "empty")
        assert "not in the local cache, and the Hub cannot be reached ([Errno" in line
        assert "onnect" in world.wrong(PUSH, folder=model[0], name="ann/z")
    finally:
        world.hub.open()
    only = {"local_files_only": True}
    asked = len(world.hub.requests)
    assert world.right(LOAD, name="ann/m", more=only) == model[1]
    assert "not in the local cache" in world.wrong(LOAD, name="ann/m", cache=world.root / "empty", more=only)
    assert len(world.hub.requests) == asked


def test_a_cache_without_the_references_says_which_file_is_wanted(world, pushed):
    cache = world.root / "only-own"
    world.right(FIND, name="ann/m", cache=cache)
    line = world.wrong(LOAD, "offline", name="ann/m", cache=cache)
    assert "the weights of clip, pub/clip@" in line and "not in the local cache" in line


def test_a_hub_that_fails_is_not_the_users_fault(world, model, pushed):
    world.hub.fails["/api/"] = 503
    line = world.wrong(FIND, name="ann/m", cache=world.root / "failing")
    assert "the Hub cannot be reached (it answers with status 503)" in line
    assert world.right(LOAD, name="ann/m") == model[1]  # what is cached serves
    world.hub.fails.clear()
    world.hub.fails["/commit/"] = 500
    line = world.wrong(PUSH, folder=model[0], name="ann/z")
    assert line == "cannot push to 'ann/z': the Hub fails (status 500): try again later"
    world.hub.fails.clear()


def test_somebody_elses_push_in_between_is_not_overwritten(world, model):
    repository = world.hub.make("ann/race")
    race = (
        "from huggingface_hub import HfApi\nreal = HfApi.list_repo_files\n"
        "def slow(self, *a, **k):\n"
        "    found = list(real(self, *a, **k))\n"
        "    HfApi.list_repo_files = real\n"
        "    self.upload_file(path_or_fileobj=b'theirs', path_in_repo='notes.txt', repo_id='ann/race')\n"
        "    return found\n"
        "HfApi.list_repo_files = slow\n"
    )
    line = world.wrong(race + PUSH, folder=model[0], name="ann/race")
    assert "cannot push to 'ann/race'" in line and set(repository.files) == {"notes.txt"}


# -------------------- at the very end


def test_the_token_is_nowhere(world, model, pushed):
    """Not in what was said, in what was pushed, in folders or caches."""
    assert len(world.said) > 40 and not [line for line in world.said if TOKEN in line]
    for repository in world.hub.repositories.values():
        for files in repository.commits.values():
            assert not [name for name, content in files.items() if TOKEN.encode() in content]
    found = [path for path in world.root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert found == []
    assert licences.covers(json.loads(pushed.files["config.json"])["licence"], "cc-by-nc-4.0")
