/* Plays films (rnem/figures/films.py): play and pause, steps, a slider, keys, and switches between films. */
(() => {
  "use strict";
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const make = (tag, attributes, text) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };

  function start(film) {
    const count = Number(film.dataset.frames), first = Number(film.dataset.first), fps = Number(film.dataset.fps);
    let frame = Number(film.style.getPropertyValue("--frame")), playing = false, seen = false, timer = null;
    const bar = make("div", { class: "film-bar" });
    const play = make("button", { type: "button", class: "film-play" });
    const back = make("button", { type: "button", "aria-label": "One frame back" }, "◂");
    const on = make("button", { type: "button", "aria-label": "One frame on" }, "▸");
    const slider = make("input", { type: "range", min: 0, max: count - 1, "aria-label": "Frame" });
    const number = make("span", { class: "film-number" });
    bar.append(play, back, on, slider, number);
    film.querySelector(".film-screen").after(bar);

    const show = (t) => {
      frame = ((t % count) + count) % count;
      film.style.setProperty("--frame", frame);
      slider.value = frame;
      slider.setAttribute("aria-valuetext", `frame ${frame + first}`);
      number.textContent = `frame ${frame + first}`;
    };
    const run = () => {
      clearInterval(timer);
      timer = playing && seen && !film.hidden ? setInterval(() => show(frame + 1), 1000 / fps) : null;
    };
    const set = (value) => {
      playing = value;
      play.textContent = playing ? "❚❚" : "▶";
      play.setAttribute("aria-label", playing ? "Pause" : "Play");
      run();
    };
    const step = (by) => { set(false); show(frame + by); };
    play.addEventListener("click", () => set(!playing));
    back.addEventListener("click", () => step(-1));
    on.addEventListener("click", () => step(1));
    slider.addEventListener("input", () => { set(false); show(Number(slider.value)); });
    film.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const key = event.key, own = event.target === slider || (event.target.tagName === "BUTTON" && key === " ");
      if (key === " " && !own) set(!playing);
      else if (key === " " && event.target === slider) set(!playing);
      else if ((key === "ArrowRight" || key === ".") && (!own || key === ".")) step(1);
      else if ((key === "ArrowLeft" || key === ",") && (!own || key === ",")) step(-1);
      else return;
      event.preventDefault();
    });
    new IntersectionObserver((entries) => { seen = entries[entries.length - 1].isIntersecting; run(); }).observe(film);
    still.addEventListener("change", () => set(!still.matches));
    film.rnem = { show, set, run, state: () => ({ frame, playing }) };
    show(frame);
    set(!still.matches);
  }

  function choose(group) {
    const films = [...group.querySelectorAll(".film")];
    const radios = [...group.querySelectorAll("input[type=radio]")];
    const pick = () => {
      const want = radios.filter((radio) => radio.checked).map((radio) => radio.value).join("|");
      const now = films.find((film) => !film.hidden), next = films.find((film) => film.dataset.choice === want);
      if (!next || next === now) return;
      const before = now.rnem.state();
      now.hidden = true;
      next.hidden = false;
      now.rnem.run();
      next.rnem.show(Math.min(before.frame, Number(next.dataset.frames) - 1));
      next.rnem.set(before.playing);
    };
    radios.forEach((radio) => radio.addEventListener("change", pick));
    group.classList.add("is-alive");
    pick(); // a browser may remember another choice than the page's
  }

  const all = () => {
    document.querySelectorAll(".film").forEach((film) => { if (!film.rnem) start(film); });
    document.querySelectorAll(".film-switch").forEach(choose);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
