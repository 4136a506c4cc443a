"""What of the review page runs in the browser: keys, style, legends. Texts alone; page.py puts them in."""

from __future__ import annotations

import json

from bi_audio_dataset.review import drawing

# key -> element of the page that it clicks
KEYS = {
    "a": "review-accept",
    "r": "review-reject",
    "p": "review-rerender",
    "n": "review-next",
    "b": "review-back",
}
HELP = (
    "Keys: **A** accept, **R** reject, **P** another path, **N** next, **B** back, **E** edit the caption "
    "(**Esc** leaves it), **space** play or pause."
)
TOO_EARLY = "The page was about to change: the last key or click was not taken."
# A listener of the page's own, as Gradio has no keys; it leaves every key to a field that is being edited.
KEYS_SCRIPT = """() => {
  if (window.reviewKeys) { return; }
  window.reviewKeys = %s;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) { return; }
    const field = event.target.closest?.("textarea, input:not([type=range])");
    if (field) { if (event.key === "Escape") { field.blur(); } return; }
    // a button that was clicked keeps the focus, and the space bar would click it again
    if (document.activeElement) { document.activeElement.blur(); }
    const key = event.key.toLowerCase();
    if (key === "e") {
      const box = document.querySelector("#review-caption textarea");
      if (box) { box.focus(); event.preventDefault(); }
    } else if (key === " ") {
      const video = document.querySelector("#review-video video");
      if (video) { video.paused ? video.play() : video.pause(); event.preventDefault(); }
    } else if (window.reviewKeys[key]) {
      const found = document.getElementById(window.reviewKeys[key]);
      const button = found && (found.tagName === "BUTTON" ? found : found.querySelector("button"));
      if (button) { button.click(); event.preventDefault(); }
    }
  });
}"""
# Where the player was paused, for the map of this moment; 0 at the end: the map of the whole clip.
PAUSED_SCRIPT = """(clip, seen, moment) => {
  const video = document.querySelector("#review-video video");
  return [clip, seen, video && !video.ended ? Math.round(20 * video.currentTime) / 20 : 0];
}"""
STYLE = """
.review-hidden { display: none !important; }
#review-progress progress { width: 100%; height: 0.5rem; }
#review-progress, #review-map-legend, #review-ild-legend { padding: 0 !important; }
#review-progress > *, #review-map-legend > *, #review-ild-legend > * { padding: 0 !important; }
.review-mark { -webkit-text-stroke: 1px #555; paint-order: stroke; padding-left: 0.6em; }
#review-ild .icon-button-wrapper, footer { display: none !important; }
"""


def keys_script() -> str:
    return KEYS_SCRIPT % json.dumps(KEYS)


def _mark(colour: tuple[int, int, int], words: str) -> str:
    return f'<span class="review-mark" style="color: rgb{colour}">&#9632;</span> {words}'


MAP_LEGEND = (
    "<b>Where the sound comes from</b>, over the panorama; the camera's view: "
    + _mark(drawing.START, "at the start, or at the moment chosen")
    + _mark(drawing.END, "at the end")
    + _mark(drawing.PATH, "its path")
    + _mark(drawing.SOURCE, "known sources")
)
ILD_LEGEND = "<b>Level difference</b> between the ears over time"
