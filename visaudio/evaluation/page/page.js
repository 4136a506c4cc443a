"use strict";
/* Players, the line that moves through the pictures, and the listing. Text from the data goes in by
   textContent alone. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const NOTHING = "\u2014";
  document.documentElement.classList.add("scripted");

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

  function shown(value, figure) {
    if (value === null) return NOTHING;
    const text = value.toFixed(figure.digits);
    return (/^-[0.]*$/.test(text) ? text.slice(1) : text).replace("-", "\u2212");
  }

  function title(figure) {
    const arrow = {higher: " \u2191", lower: " \u2193"}[figure.better] || "";
    return figure.title + (figure.unit ? ` (${figure.unit})` : "") + arrow;
  }

  // -------------------- players: one sounds at a time, the next of the same clip goes on where it was

  let sounding = null;
  const place = (element) => element.closest(".card, .opened");

  function start(audio) {
    const before = sounding;
    sounding = audio;
    if (before && before !== audio) {
      before.pause();
      if (place(before) === place(audio) && !before.ended) audio.currentTime = before.currentTime;
    }
    document.querySelectorAll(".playing").forEach((row) => row.classList.remove("playing"));
    audio.closest("tr").classList.add("playing");
    const video = place(audio).querySelector("video");
    if (video) {
      video.muted = true;
      video.currentTime = audio.currentTime;
      video.play().catch(() => {});
    }
    requestAnimationFrame(follow);
  }

  function stop(audio) {
    const video = place(audio)?.querySelector("video");
    if (video && sounding === audio) video.pause();
  }

  function follow() {
    if (!sounding || !sounding.isConnected) return;
    cursor(place(sounding), sounding.currentTime);
    if (!sounding.paused) requestAnimationFrame(follow);
  }

  function cursor(card, seconds) {
    for (const panel of card.querySelectorAll(".panel")) {
      let line = panel.cursor;
      if (!line) {
        line = panel.cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
        line.setAttribute("class", "cursor");
        panel.after(line);
      }
      const [x, y, width, height] = ["x", "y", "width", "height"].map((name) => +panel.getAttribute(name));
      const at = x + width * Math.min(1, seconds / +panel.dataset.seconds);
      for (const [name, value] of [["x1", at], ["x2", at], ["y1", y], ["y2", y + height]]) {
        line.setAttribute(name, value);
      }
    }
  }

  // events of media do not bubble, so they are caught on their way down
  document.addEventListener("play", (event) => event.target.tagName === "AUDIO" && start(event.target), true);
  document.addEventListener("pause", (event) => event.target.tagName === "AUDIO" && stop(event.target), true);
  document.addEventListener("seeked", (event) => {
    const audio = event.target;
    if (audio.tagName !== "AUDIO" || audio !== sounding) return;
    cursor(place(audio), audio.currentTime);
    const video = place(audio).querySelector("video");
    if (video) video.currentTime = audio.currentTime;
  }, true);
  document.addEventListener("click", (event) => {
    const panel = event.target.closest?.(".panel");
    const card = panel && place(panel);
    if (!card) return;
    const box = panel.getBoundingClientRect();
    const seconds = (event.clientX - box.left) / box.width * +panel.dataset.seconds;
    const audio = sounding && place(sounding) === card ? sounding : card.querySelector("audio");
    if (!audio) return;
    sounding = audio;
    audio.currentTime = seconds;
    cursor(card, seconds);
    audio.play().catch(() => {});
  });

  // -------------------- the listing

  const table = document.getElementById("listing");
  if (!table) return;
  const control = (name) => document.getElementById(name);
  const sort = {key: "value", column: data.system, down: null};  // down: null for worst first

  const chosen = () => ({figure: +control("figure").value, system: +control("system").value,
    wide: control("columns").value === "1", group: control("group") ? +control("group").value : -1});

  function columns(c) {  // of values: {figure, system, title}
    if (c.wide) return data.figures.map((figure, f) => ({figure: f, system: c.system, title: title(figure)}));
    return data.systems.map((name, s) => ({figure: c.figure, system: s, title: name}));
  }

  function ordered(rows, c, list) {
    let key = (k) => data.clips[k][sort.key], down = sort.down;
    if (sort.key === "value") {
      const {figure, system} = list[sort.column];
      key = (k) => data.values[figure][system][k];
      if (down === null) down = data.figures[figure].better !== "higher";
    }
    return rows.slice().sort((i, j) => {
      const [a, b] = [key(i), key(j)];
      if (a === null || b === null) return (a === null) - (b === null) || i - j;  // no value: always last
      const less = typeof a === "string" ? a.localeCompare(b, "en", {numeric: true}) : a - b;
      return (down ? -less : less) || i - j;
    });
  }

  function head(c, list) {
    const cell = (text, key, column = null) => {
      const mine = sort.key === key && (key !== "value" || sort.column === column);
      let down = sort.down;
      if (mine && down === null) down = data.figures[list[column].figure].better !== "higher";
      const sign = mine ? (down ? " \u25be" : " \u25b4") : "";
      const button = make("button", {type: "button"}, text + sign);
      button.addEventListener("click", () => {
        if (mine) sort.down = !down;
        else Object.assign(sort, {key, column, down: key === "value" ? null : false});
        draw();
        table.tHead.querySelectorAll("button")[[...cells].indexOf(button.parentElement)]?.focus();
      });
      const order = mine ? (down ? "descending" : "ascending") : "none";
      return make("th", {scope: "col", class: column === null ? null : "number", "aria-sort": order}, button);
    };
    const cells = [cell("clip", "id"), cell("caption", "caption"),
      ...list.map((one, column) => cell(one.title, "value", column))];
    const first = make("th", {scope: "col"}, make("span", {class: "hidden"}, "open"));
    table.tHead.replaceChildren(make("tr", {}, first, ...cells));
  }

  function row(k, list) {
    const clip = data.clips[k];
    const opener = make("button",
      {type: "button", "aria-expanded": "false", "aria-label": `open ${clip.id}`}, "+");
    const name = data.cards.includes(k) ? make("a", {href: `#clip-${k}`}, clip.id) : clip.id;
    const element = make("tr", {}, make("td", {}, opener), make("th", {scope: "row", title: clip.id}, name),
      make("td", {class: "caption"}, clip.caption),
      ...list.map(({figure, system}) =>
        make("td", {class: "number"}, shown(data.values[figure][system][k], data.figures[figure]))));
    opener.addEventListener("click", () => {
      const open = opener.getAttribute("aria-expanded") === "true";
      if (open) element.nextSibling.remove();
      else element.after(opened(k, list.length + 3));
      opener.setAttribute("aria-expanded", String(!open));
      opener.textContent = open ? "+" : "\u2212";
    });
    return element;
  }

  function opened(k, width) {
    const clip = data.clips[k];
    const player = (name, source) => source && make("tr", {}, make("th", {scope: "row"}, name),
      make("td", {}, make("audio", {controls: true, preload: "none", src: source, "aria-label": name})));
    const players = make("table", {class: "players"}, player("reference", clip.reference),
      ...data.systems.map((name, s) => player(name, clip.sounds[s])));
    const video = clip.video && make("video",
      {controls: true, muted: true, preload: "metadata", playsinline: true, src: clip.video});
    const lines = data.figures.map((figure, f) => make("tr", {}, make("th", {scope: "row"}, title(figure)),
      ...data.systems.map((_, s) => make("td", {class: "number"}, shown(data.values[f][s][k], figure)))));
    const names = data.systems.map((name) => make("th", {scope: "col"}, name));
    const figures = make("table", {class: "figures"}, make("thead", {}, make("tr", {}, make("td"), ...names)),
      make("tbody", {}, ...lines));
    const more = make("details", {}, make("summary", {}, "all figures of this clip"), figures);
    return make("tr", {class: "opened"}, make("td", {colspan: String(width)},
      make("div", {class: "listen"}, video, players), more));
  }

  // a page of rows at a time: a browser takes seconds over a thousand rows of forty figures
  const PAGE = 100;
  let watcher = null;

  function append(rows, list) {
    watcher?.disconnect();
    const body = table.tBodies[0];
    body.append(...rows.slice(0, PAGE).map((k) => row(k, list)));
    const left = rows.slice(PAGE);
    if (!left.length) return;
    const button = make("button", {type: "button"}, `${left.length} more`);
    const last = make("tr", {class: "more"}, make("td", {colspan: String(list.length + 3)}, button));
    const go = () => {
      last.remove();
      append(left, list);
    };
    button.addEventListener("click", go);
    body.append(last);
    watcher = new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && go(),
      {root: table.parentElement, rootMargin: "600px"});
    watcher.observe(last);
  }

  function draw() {
    const c = chosen(), list = columns(c);
    if (sort.key === "value" && sort.column >= list.length) sort.column = 0;
    const wanted = control("find").value.trim().toLowerCase();
    let rows = c.group < 0 ? data.clips.map((_, k) => k) : data.groups[c.group].clips;
    const has = (text) => text.toLowerCase().includes(wanted);
    if (wanted) rows = rows.filter((k) => has(data.clips[k].id) || has(data.clips[k].caption));
    head(c, list);
    table.tBodies[0].replaceChildren();
    append(ordered(rows, c, list), list);
    const what = c.wide ? `every figure of ${data.systems[c.system]}` : title(data.figures[c.figure]);
    control("listing-caption").textContent = what;
    control("count").textContent = rows.length === 1 ? "1 clip" : `${rows.length} clips`;
  }

  function worst() {  // back to worst first, by what was chosen
    const c = chosen();
    Object.assign(sort, {key: "value", column: c.wide ? c.figure : c.system, down: null});
    draw();
  }

  for (const name of ["figure", "system", "columns"]) control(name).addEventListener("change", worst);
  control("group")?.addEventListener("change", draw);
  control("find").addEventListener("input", draw);
  worst();
})();
