"use strict";
(() => {
  const main = document.getElementById("main");
  const message = document.getElementById("message");
  const RATINGS = [[5, "5 excellent"], [4, "4 good"], [3, "3 fair"], [2, "2 poor"], [1, "1 bad"]];
  const CHOICES = [["first", "the first"], ["same", "no difference"], ["second", "the second"]];
  let listener = sessionStorage.getItem("listener") || "";

  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === false) continue;
      if (key in element && typeof value !== "string") element[key] = value;
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  function show(...children) {
    main.replaceChildren(...children.filter((child) => child !== null));
    main.focus();
    scrollTo(0, 0);
  }

  function progress(state) {
    const done = Math.min(state.done + (state.finished ? 0 : 1), state.total);
    document.getElementById("progress").textContent =
      "trial" in state || state.finished ? `${done} of ${state.total}` : "";
  }

  async function ask(request, body = {}) {
    message.textContent = "";
    let response;
    try {
      response = await fetch(`api/${request}`, {method: "POST", headers: {"Content-Type": "application/json"},
        body: JSON.stringify({listener, ...body})});
    } catch {
      throw new Error("The test's server does not answer. Is it still running?");
    }
    const found = await response.json();
    if (!response.ok) throw new Error(found.error);
    return found;
  }

  const guarded = (run) => async (...given) => {
    try {
      await run(...given);
    } catch (error) {
      message.textContent = error.message;
    }
  };

  // -------------------- who

  function welcome() {
    const name = make("input",
      {type: "text", id: "name", value: listener, maxLength: 40, autocomplete: "off"});
    const label = make("label", {for: "name"}, "Your name or number");
    const go = make("button", {type: "submit", class: "strong"}, "Begin");
    const form = make("form", {}, make("div", {class: "row"}, label, name, go));
    form.addEventListener("submit", guarded(async (event) => {
      event.preventDefault();
      listener = name.value.trim();
      await begin();
    }));
    show(make("h2", {}, "Welcome"),
      make("p", {}, "You will hear short sounds, most of them with a picture, and say how good they are. "
        + "Wear headphones, sit somewhere quiet, and listen as often as you like. You may stop at any time: "
        + "under the same name you go on where you were."), form);
    name.focus();
  }

  async function begin() {
    const state = await ask("start");
    sessionStorage.setItem("listener", listener);
    if (state.passed) await next();
    else await check();
  }

  // -------------------- headphones

  async function check(again = false) {
    const {tones, volume} = await ask("check");
    const said = tones.map(() => null);
    const sound = new Audio();
    const play = (name) => guarded(async () => {
      sound.src = `media/${name}`;
      await sound.play();
    });
    const ready = make("button", {type: "button", class: "strong", disabled: true}, "Continue");
    const rows = tones.map((name, k) => {
      const listen = make("button", {type: "button"}, `Tone ${k + 1}`);
      listen.addEventListener("click", play(name));
      const choice = (side) => {
        const input = make("input", {type: "radio", name: `tone-${k}`, value: side});
        input.addEventListener("change", () => {
          said[k] = side;
          ready.disabled = said.includes(null);
        });
        return make("label", {}, input, ` ${side}`);
      };
      return make("div", {class: "row", role: "group", "aria-label": `tone ${k + 1}`}, listen,
        make("div", {class: "scale"}, choice("left"), choice("right")));
    });
    const loud = make("button", {type: "button"}, "Play the volume tone");
    loud.addEventListener("click", play(volume));
    ready.addEventListener("click", guarded(async () => {
      if ((await ask("checked", {said})).passed) await next();
      else await check(true);
    }));
    show(make("h2", {}, "Headphones"),
      again ? make("p", {}, "Not every tone was on the side you said. Put the headphones on with L on the "
        + "left ear and R on the right, switch off anything that mixes the two, and try again.") : null,
      make("p", {}, "Set a comfortable volume with this tone, and leave it so for the whole test."),
      make("div", {class: "row"}, loud),
      make("p", {}, "On which side is each of these?"), ...rows, make("div", {class: "row"}, ready));
  }

  // -------------------- trials

  function player(name, title, picture, others) {
    const sound = make(picture ? "video" : "audio",
      {src: `media/${name}`, preload: "auto", playsinline: true, disableremoteplayback: true});
    const button = make("button", {type: "button"}, `Play ${title}`);
    const bar = make("progress", {max: 1, value: 0, "aria-label": `${title}, how far`});
    const box = make("section", {class: "player", "aria-label": title}, sound, button, bar);
    const it = {sound, box, plays: 0, heard: false, changed: () => {}};
    sound.addEventListener("timeupdate", () => {
      bar.value = sound.duration ? sound.currentTime / sound.duration : 0;
    });
    sound.addEventListener("play", () => {
      for (const other of others) if (other !== it) other.sound.pause();
      box.classList.add("playing");
      button.textContent = `Stop ${title}`;
    });
    const stopped = () => {
      box.classList.remove("playing");
      button.textContent = `Play ${title}`;
    };
    sound.addEventListener("pause", stopped);
    sound.addEventListener("ended", () => {
      stopped();
      it.plays += 1;
      it.heard = true;
      it.changed();
    });
    sound.addEventListener("error", () => { message.textContent = "This browser cannot play the sound."; });
    button.addEventListener("click", guarded(async () => {
      if (!sound.paused) {
        sound.pause();
        return;
      }
      sound.currentTime = 0;
      await sound.play();
    }));
    return it;
  }

  async function next() {
    const trial = await ask("next");
    progress(trial);
    if (trial.finished) {
      show(make("h2", {}, "Thank you"),
        make("p", {}, "That was all. Your answers are stored; you may close this page."));
      return;
    }
    const pair = trial.kind === "pair";
    const players = [];
    const titles = pair ? ["the first", "the second"] : ["the sound"];
    trial.sounds.forEach((name, k) => players.push(player(name, titles[k], trial.picture, players)));
    const given = {};
    const send = make("button", {type: "submit", class: "strong", disabled: true}, "Next");
    const hint = make("p", {class: "hint"});
    const changed = () => {
      const heard = players.every((one) => one.heard);
      const all = trial.questions.every((question) => question.name in given);
      send.disabled = !(heard && all);
      hint.textContent = heard ? "" : pair ? "Listen to both to their ends." : "Listen to the end.";
    };
    const questions = trial.questions.map((question) => {
      const options = (pair ? CHOICES : RATINGS).map(([value, label]) => {
        const input = make("input", {type: "radio", name: question.name, value: String(value)});
        input.addEventListener("change", () => {
          given[question.name] = value;
          changed();
        });
        return make("label", {}, input, ` ${label}`);
      });
      return make("fieldset", {}, make("legend", {}, question.title), make("p", {}, question.text),
        make("div", {class: "scale"}, ...options));
    });
    const form = make("form", {}, ...questions, make("div", {class: "row"}, send, hint));
    form.addEventListener("submit", guarded(async (event) => {
      event.preventDefault();
      send.disabled = true;
      players.forEach((one) => one.sound.pause());
      try {
        await ask("answer", {trial: trial.trial, given, plays: players.map((one) => one.plays)});
      } catch (error) {
        changed();
        throw error;
      }
      await next();
    }));
    players.forEach((one) => { one.changed = changed; });
    changed();
    show(make("h2", {}, pair ? "Two sounds: which is better?" : "One sound: how good is it?"),
      make("div", {class: "players"}, ...players.map((one) => one.box)),
      pair ? make("p", {}, "For each question: in which of the two more so?") : null, form);
  }

  welcome();
})();
