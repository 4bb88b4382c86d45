// The page's box: a reader throws balls, networks watch them (model.js, world.js), and everything they hold is drawn.
//
// Every <div class="rnem-live" data-live="{...}"> becomes a widget; rnem.sphinx_live writes it. A widget has a box
// (balls, curtain), one or two watchers (a network and its state), settings, and views that are drawn after each frame.
(function (root) {
  "use strict";

  const { model, world } = root.RNEM;
  const STRIDE = 2; // simulator steps a frame, as in the laptop's videos
  const KEPT = 120; // frames in the curves
  const THROW = 0.13; // speed, box units a step, of a drag of one box unit
  const SPEEDS = [2, 6, 12, 24]; // frames a second
  // As rnem.figures has them.
  const COLOURS = [
    [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [204, 121, 167], [200, 45, 35], [55, 85, 225],
    [185, 235, 165],
  ];
  const GREY = [82, 82, 82];
  const MODEL_COLOURS = { rnem: "#0072B2", rnem_noatt: "#56B4E9", nem: "#D55E00", rnn: "#CC79A7" };
  const MODEL_NAMES = { rnem: "R-NEM", rnem_noatt: "R-NEM without attention", nem: "N-EM", rnn: "RNN" };

  const ball = (kind, y, x, vy, vx) => ({ ...kind, y, x, vy, vx, touched: false });
  const scattered = (count) => (next) => world.scatter(count, next, [world.LIGHT, world.HEAVY], 1 / 3, 1.25);

  /** Prepared boxes: what stands on the button, what to look for, and the balls. */
  const SCENES = {
    four: {
      name: "Four balls", balls: scattered(4),
      say: "As in training. Within ten or twenty frames nearly every ball has a colour of its own.",
    },
    collision: {
      name: "A collision",
      balls: () => [ball(world.HEAVY, 4.8, 1.4, 0, 0.08), ball(world.LIGHT, 5.4, 8.6, 0, -0.12)],
      say: "A heavy ball and a light one meet at frame 14. Watch the attention matrix.",
    },
    five: { name: "Five balls", balls: scattered(5), say: "One more than any training video had." },
    eight: { name: "Eight balls", balls: scattered(8), say: "Twice as many balls as in training." },
    curtain: {
      name: "The curtain", curtain: { y: 2.8, x: 2.8 },
      balls: (next) => world.scatter(3, next, [world.CURTAINED], 1 / 2, 1.25),
      say: "Behind the curtain the frame is off, and off is what the network predicts. Watch whether a ball is expected " +
        "where it comes out, and whether it keeps its colour.",
    },
    empty: { name: "Empty box", balls: () => [], say: "Drag to throw the first ball." },
  };

  // ------------------------------------------------------------------------------------------------------ small helpers

  /** An element with attributes (functions are listeners) and children. */
  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== null) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  const css = (colour) => `rgb(${colour.join(",")})`;

  /** Write N pixels, given as functions of their number to [r, g, b], to a canvas of that many. */
  function paint(canvas, size, rgb) {
    const context = canvas.getContext("2d"), image = context.createImageData(size, size);
    for (let p = 0; p < size * size; p++) {
      const [r, g, b] = rgb(p);
      image.data.set([r, g, b, 255], 4 * p);
    }
    context.putImageData(image, 0, 0);
  }

  const grey = (values) => (p) => {
    const v = Math.round(255 * values[p]);
    return [v, v, v];
  };

  /** gamma mixes the components' colours, `mask` dims the rest: rnem.figures.grouping_rgb. */
  function grouping(gamma, mask, colours) {
    const N = mask.length;
    return (p) => {
      const rgb = [0, 0, 0], light = 0.12 + 0.88 * mask[p];
      for (let k = 0; k < colours.length; k++)
        for (let c = 0; c < 3; c++) rgb[c] += gamma[k * N + p] * colours[k][c] * light;
      return rgb;
    };
  }

  // ---------------------------------------------------------------------------------------------------------- watchers

  /** A network that looks at the box or imagines, with its state. */
  class Watcher {
    constructor(run, settings, next) {
      this.run = run;
      this.network = model.load(run, settings.components, settings.effects);
      this.next = next;
      this.forget();
    }

    /** theta = 0, psi = 0, gamma drawn anew. */
    forget() {
      const { K, size } = this.network;
      this.raw = world.normal(this.next, K * size * size);
      this.state = model.initialState(this.network, this.raw);
      this.imagined = 0;
      this.seen = false; // a pixel, since gamma was drawn
      this.shares = new Float64Array(K); // of the empty pixels, over the last frames
    }

    /**
     * One step: from `frame` to what the next frame will be, and the E-step against it. A frame without a pixel
     * gives every component the same input, 0, so that equal states stay equal: gamma is drawn anew until a pixel is seen.
     */
    look(frame, target, empty) {
      this.imagined = 0;
      const blank = !frame.some((v) => v > 0);
      this.blank = blank && (empty || !this.seen);
      if (this.blank) return this.forget();
      this.seen = true;
      this.state = model.step(this.network, this.state, frame, target);
      this.note(target);
    }

    /** One step on its own prediction. */
    imagine(feedback) {
      this.imagined++;
      this.blank = false;
      this.state = model.imagine(this.network, this.state, feedback);
      this.note(this.prediction());
    }

    prediction() {
      return model.prediction(this.state.psi, this.network.K);
    }

    /** Remember who has the empty pixels: a component with more than half of them models the background. */
    note(mask) {
      const { K } = this.network, N = mask.length, share = new Float64Array(K);
      let empty = 0;
      for (let p = 0; p < N; p++) {
        if (mask[p] >= 0.5) continue;
        empty++;
        for (let k = 0; k < K; k++) share[k] += this.state.gamma[k * N + p];
      }
      for (let k = 0; k < K; k++) this.shares[k] = 0.9 * this.shares[k] + (0.1 * share[k]) / Math.max(empty, 1);
    }

    colours() {
      const total = this.shares.reduce((a, b) => a + b, 0);
      return COLOURS.slice(0, this.network.K).map((c, k) => (K1(this) || this.shares[k] <= 0.5 * total ? c : GREY));
    }
  }
  const K1 = (watcher) => watcher.network.K === 1;

  // ------------------------------------------------------------------------------------------------------------ widget

  class Widget {
    constructor(place, known) {
      this.place = place;
      this.known = known;
      this.settings = {
        scene: "four", seed: 8, run: known.runs[0].label, beside: false, components: 0, effects: "sum",
        feedback: "binary", speed: 12, imagine: 0, stop: 0, heavy: false,
      };
      this.motion = !matchMedia("(prefers-reduced-motion: reduce)").matches;
      this.playing = false;
      this.insight = true;
      this.history = [];
      this.pixel = null;
      this.cross = null;
      this.read(known.start);
      this.build();
      // The run is loaded when the box first comes into sight.
      this.loading = new Promise((resolve) => { this.wake = resolve; }).then(() => this.start());
      this.watchSight();
    }

    // -------------------------------------------------------------------------------------------- settings and address

    /** Take settings from a text such as scene=eight&components=8; true where it has any. */
    read(text) {
      const given = new URLSearchParams(text || "");
      let any = false;
      for (const [name, value] of given) {
        if (!(name in this.settings)) continue;
        const before = this.settings[name];
        this.settings[name] = typeof before === "number" ? Number(value) : typeof before === "boolean" ? value === "1" : value;
        any = true;
      }
      if (!SCENES[this.settings.scene]) this.settings.scene = "four";
      const curtained = this.curtained();
      if (this.settings.scene === "curtain" && !given.has("run") && curtained) this.settings.run = curtained.label;
      if (!this.known.runs.some((run) => run.label === this.settings.run)) this.settings.run = this.known.runs[0].label;
      return any;
    }

    /** What an address must say to show the same. */
    address() {
      const defaults = { beside: false, components: 0, effects: "sum", feedback: "binary", speed: 12, imagine: 0, stop: 0,
        heavy: false, run: this.known.runs[0].label, scene: "four", seed: 8 };
      const told = Object.entries(this.settings).filter(([name, value]) => value !== defaults[name]);
      return told.map(([name, value]) => `${name}=${encodeURIComponent(value === true ? 1 : value)}`).join("&");
    }

    writeAddress() {
      if (this !== root.RNEM.widgets[0]) return;
      try {
        history.replaceState(null, "", "#live&" + this.address());
      } catch (error) { /* a page that may not change its address works without */ }
    }

    described(label) {
      return this.known.runs.find((run) => run.label === label);
    }

    /** The run that was trained with a curtain. */
    curtained() {
      return this.known.runs.find((run) => run.data.includes("curtain"));
    }

    /** A run's script, loaded when it is first wanted. */
    fetchRun(label) {
      const there = (root.RNEM_RUNS || {})[label];
      if (there) return Promise.resolve(there);
      this.say(`Loading ${label} …`);
      return new Promise((resolve, reject) => {
        const source = this.known.folder + this.described(label).file;
        document.head.append(element("script", { src: source,
          load: () => resolve(root.RNEM_RUNS[label]), error: () => reject(new Error(`${source} cannot be loaded`)) }));
      });
    }

    // ------------------------------------------------------------------------------------------------ scenes and runs

    /** Load what the settings ask for, set the scene and begin. */
    async start() {
      try {
        await this.loadRuns();
      } catch (error) {
        return this.place.append(element("p", {}, `It cannot play: ${error.message}`));
      }
      this.setScene();
      this.place.classList.add("is-alive");
      if (!this.motion) for (let i = 0; i < 12; i++) this.tick();
      this.play(this.motion);
      this.draw();
    }

    async loadRuns() {
      const { settings } = this, data = this.described(settings.run).data;
      const other = this.known.runs.find((run) => run.model === "nem" && run.data === data);
      if (!other || other.label === settings.run) settings.beside = false;
      const labels = [settings.run, ...(settings.beside ? [other.label] : [])];
      const runs = await Promise.all(labels.map((label) => this.fetchRun(label)));
      const next = world.random(settings.seed + 1000);
      this.watchers = runs.map((run, i) => new Watcher(run, i ? {} : settings, next));
      this.history = [];
      this.settle();
    }

    setScene() {
      const { settings } = this, scene = SCENES[settings.scene];
      this.balls = scene.balls(world.random(settings.seed));
      this.curtain = scene.curtain ? { ...scene.curtain } : null;
      this.frame = 0;
      this.mode = "look";
      this.blank = false; // whether the status says so
      this.history = [];
      for (const watcher of this.watchers) {
        watcher.next = world.random(settings.seed + 1000); // so that an address shows the same again
        watcher.forget();
      }
      this.say(scene.say);
      this.settle();
    }

    /** A scene by its button: the curtain has a run of its own, and all others are for the default one. */
    async choose(name) {
      const before = this.settings.run;
      const curtained = this.curtained();
      const now = this.described(before).data.includes("curtain");
      if (name === "curtain" && curtained) this.settings.run = curtained.label;
      else if (name !== "curtain" && now) this.settings.run = this.known.runs[0].label;
      if (this.settings.scene === name) this.settings.seed++; // once more: other balls
      Object.assign(this.settings, { scene: name, imagine: 0, stop: 0 });
      if (before !== this.settings.run) this.settings.components = 0;
      await this.again(before !== this.settings.run);
      this.play(this.motion || this.playing);
    }

    /** After a change of settings: other runs where `load`, and the scene from its beginning. */
    async again(load) {
      if (load) await this.loadRuns();
      this.setScene();
      this.writeAddress();
      this.draw();
    }

    /** Another network on the same balls, which go on: it begins without a memory. */
    async swap() {
      await this.loadRuns();
      this.mode = "look";
      this.writeAddress();
      this.draw();
    }

    // ---------------------------------------------------------------------------------------------------------- frames

    rendered() {
      return world.render(this.balls, this.watchers[0].network.size, this.curtain);
    }

    /** One frame: the balls move, and every watcher takes a step. */
    tick() {
      const { settings } = this, before = this.rendered().features;
      if (settings.imagine && this.frame === settings.imagine) this.imagine(true);
      world.advance(this.balls, STRIDE);
      const next = this.rendered(), row = { imagined: this.mode === "imagine", bce: [], ari: [] };
      for (const watcher of this.watchers) {
        if (this.mode === "imagine") watcher.imagine(settings.feedback);
        else watcher.look(before, next.features, this.balls.length === 0);
        const { K } = watcher.network;
        row.bce.push(watcher.blank ? NaN : model.bce(watcher.prediction(), next.features));
        row.ari.push(watcher.blank ? NaN : model.ari(next.groups, watcher.state.gamma, K));
      }
      this.history.push(row);
      if (this.history.length > KEPT) this.history.shift();
      this.frame++;
      if (settings.stop && this.frame === settings.stop) this.play(false);
    }

    imagine(on) {
      this.mode = on ? "imagine" : "look";
      this.controls.imagine.setAttribute("aria-pressed", String(on));
      this.say(on
        ? "Imagining: the network reads its own prediction and no longer sees the box. The outlines are the true balls."
        : "Looking again.");
    }

    forget() {
      for (const watcher of this.watchers) watcher.forget();
      this.imagine(false);
      this.say("Forgotten: theta = 0, and gamma drawn anew. It has to find the balls again.");
      this.draw();
    }

    play(on) {
      this.playing = on;
      this.controls.play.textContent = on ? "❚❚ Pause" : "▶ Play";
      if (on && !this.pending) this.pending = requestAnimationFrame((time) => this.animate(time));
    }

    animate(time) {
      this.pending = 0;
      if (!this.playing || !this.insight || document.hidden) return;
      const wait = 1000 / this.settings.speed;
      if (!(time - this.last < 5 * wait)) this.last = time - wait;
      if (time - this.last >= wait) {
        this.last += wait;
        this.tick();
        this.draw();
      }
      if (this.playing) this.pending = requestAnimationFrame((later) => this.animate(later));
    }

    // ---------------------------------------------------------------------------------------------------------- throws

    /** A ball thrown from (y, x) by a drag of (dy, dx) box units; a ball that is there is pushed instead. */
    throwBall(y, x, dy, dx) {
      const thrown = world.clipped(dy * THROW, dx * THROW);
      const there = this.balls.find((b) => Math.hypot(b.y - y, b.x - x) < b.radius);
      if (there) Object.assign(there, { vy: thrown.vy, vx: thrown.vx });
      else if (this.balls.length >= world.MOST) return this.say(`There is room for ${world.MOST} balls.`);
      else {
        const curtained = this.described(this.settings.run).data.includes("curtain");
        const kind = curtained ? world.CURTAINED : this.settings.heavy ? world.HEAVY : world.LIGHT;
        const inside = (v) => Math.min(Math.max(v, kind.radius), world.BOX - kind.radius);
        this.balls.push(ball(kind, inside(y), inside(x), thrown.vy, thrown.vx));
      }
      this.say(thrown.clipped
        ? `Slowed down to ${world.FASTEST} box units a step: training held nothing faster.`
        : this.mode === "imagine" ? "Thrown; but the network is imagining, and does not see it." : "Thrown.");
      this.draw();
    }

    /** From a random place in a random direction: for the buttons, and without a mouse. */
    throwAnywhere(heavy) {
      const next = Math.random, angle = 2 * Math.PI * next();
      this.settings.heavy = heavy;
      this.settle();
      this.throwBall(1.5 + 7 * next(), 1.5 + 7 * next(), 1.6 * Math.sin(angle), 1.6 * Math.cos(angle));
    }

    /** Where in the box (y, x) a pointer is. */
    spot(event, canvas) {
      const area = canvas.getBoundingClientRect();
      return {
        y: ((event.clientY - area.top) / area.height) * world.BOX, x: ((event.clientX - area.left) / area.width) * world.BOX,
      };
    }

    pixelAt({ y, x }) {
      const { size } = this.watchers[0].network, index = (v) => Math.min(Math.max(Math.floor((v / world.BOX) * size), 0), size - 1);
      return index(y) * size + index(x);
    }

    inspect(pixel) {
      this.pixel = pixel;
      this.draw();
    }

    listen(canvas) {
      canvas.addEventListener("pointerdown", (event) => {
        if (!this.watchers || event.button) return;
        event.preventDefault();
        canvas.focus({ preventScroll: true });
        canvas.setPointerCapture(event.pointerId);
        const from = this.spot(event, canvas);
        const onCurtain = this.curtain && world.covers(this.curtain, from.y, from.x);
        this.drag = { from, to: from, curtain: onCurtain ? { ...this.curtain } : null };
      });
      canvas.addEventListener("pointermove", (event) => {
        if (!this.drag) return;
        const { from, curtain } = this.drag, to = (this.drag.to = this.spot(event, canvas));
        if (curtain) {
          // Its corner lies on the grid of the authors' frames.
          const place = (v) => (Math.round(Math.min(Math.max(v, 0), world.BOX - world.CURTAIN_SIDE) * 6.4) / 64) * 10;
          this.curtain = { y: place(curtain.y + to.y - from.y), x: place(curtain.x + to.x - from.x) };
        }
        this.draw();
      });
      const end = (event) => {
        if (!this.drag) return;
        const { from, curtain } = this.drag, to = this.spot(event, canvas), dy = to.y - from.y, dx = to.x - from.x;
        this.drag = null;
        if (event.type === "pointercancel" || curtain) return this.draw();
        if (Math.hypot(dy, dx) < 0.3) this.inspect(this.pixelAt(from));
        else this.throwBall(from.y, from.x, dy, dx);
      };
      canvas.addEventListener("pointerup", end);
      canvas.addEventListener("pointercancel", end);
      canvas.addEventListener("keydown", (event) => this.key(event));
    }

    /** Keys in the box: arrows move a cross; Enter shows its pixel; L and H throw; Space, period, I and F. */
    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.watchers) return;
      const { size } = this.watchers[0].network, moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      const at = this.cross || [size >> 1, size >> 1], key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const actions = {
        Enter: () => this.inspect(at[0] * size + at[1]), " ": () => this.controls.play.click(),
        ".": () => this.controls.step.click(), i: () => this.controls.imagine.click(), f: () => this.forget(),
        l: () => this.throwAnywhere(false), h: () => this.throwAnywhere(true),
      };
      if (moves[key]) {
        this.cross = at.map((v, axis) => Math.min(Math.max(v + moves[key][axis], 0), size - 1));
        this.draw();
      } else if (actions[key]) actions[key]();
      else return;
      event.preventDefault();
    }

    // --------------------------------------------------------------------------------------------------------- building

    build() {
      const canvas = (size, label, more) => element("canvas", { width: size, height: size, role: "img", "aria-label": label, ...more });
      const picture = (name, label, more) => {
        const title = element("span"), made = canvas(384, label, more), extra = element("span", { class: "rnem-live-number" });
        return { title, made, extra, figure: element("figure", { class: `rnem-live-${name}` }, element("figcaption", {}, title, extra), made) };
      };
      const button = (text, action, more) => element("button", { type: "button", click: action, ...more }, text);
      this.views = {
        box: picture("box", "The box with the true balls. Drag to throw one. Keys: arrows and Enter show a pixel, L and H throw.",
          { tabindex: 0, role: "application" }),
        others: [0, 1].map(() => [picture("prediction", "What is expected of the next frame"), picture("grouping", "Which component claims which pixel")]),
        tiles: element("div", { class: "rnem-live-tiles" }), attention: canvas(160, "Attention between components"),
        strip: element("canvas", { class: "rnem-live-strip", height: 150, role: "img", "aria-label": "BCE and ARI of the last frames" }),
        pixel: element("p", { class: "rnem-live-pixel", "aria-live": "polite" }), status: element("p", { class: "rnem-live-status", role: "status" }),
        run: element("p", { class: "rnem-live-run" }), small: element("canvas", { width: 32, height: 32 }),
      };
      this.listen(this.views.box.made);
      for (const pair of this.views.others)
        for (const { made } of pair) made.addEventListener("click", (event) => this.inspect(this.pixelAt(this.spot(event, made))));

      const controls = (this.controls = {
        play: button("▶ Play", () => this.play(!this.playing), { class: "rnem-live-main" }),
        step: button("One step", () => { this.play(false); this.tick(); this.draw(); }, { title: "One frame further" }),
        imagine: button("Imagine", () => { this.settings.imagine = 0; this.imagine(this.mode !== "imagine"); this.draw(); },
          { class: "rnem-live-imagine", "aria-pressed": "false", title: "Feed the network its own predictions" }),
        forget: button("Forget", () => this.forget(), { title: "theta = 0, gamma drawn anew" }),
      });
      const select = (name, options, change) => {
        const made = element("select", { change: () => { this.settings[name] = typeof this.settings[name] === "number" ? Number(made.value) : made.value; change(); } },
          ...options.map(([value, text]) => element("option", { value }, text)));
        return (controls[name] = made);
      };
      const check = (name, change) => {
        const made = element("input", { type: "checkbox", change: () => { this.settings[name] = made.checked; change(); } });
        return (controls[name] = made);
      };
      const named = (text, control) => element("label", {}, text + " ", control);
      const bar = element("div", { class: "rnem-live-bar" }, controls.play, controls.step, controls.imagine, controls.forget,
        button("+ light ball", () => this.throwAnywhere(false)), button("+ heavy ball", () => this.throwAnywhere(true)));
      const scenes = element("div", { class: "rnem-live-bar rnem-live-scenes" },
        ...Object.entries(SCENES).filter(([name]) => name !== "curtain" || this.curtained())
          .map(([name, scene]) => button(scene.name, () => this.choose(name), { "data-scene": name, title: "Pressed again: other balls" })));
      const runName = (run) => `${MODEL_NAMES[run.model]}, K = ${run.components}` + (run.data.includes("curtain") ? ", curtain" : "");
      const settings = element("div", { class: "rnem-live-settings" },
        named("Network", select("run", this.known.runs.map((run) => [run.label, runName(run)]), () => { this.settings.components = 0; this.swap(); })),
        named("N-EM beside it", check("beside", () => this.swap())),
        named("Balls I throw", select("heavy", [["", "light"], ["1", "heavy"]], () => { this.settings.heavy = controls.heavy.value === "1"; this.writeAddress(); })),
        named("Curtain", (controls.curtain = element("input", { type: "checkbox", change: () => {
          this.curtain = controls.curtain.checked ? { y: 2.8125, x: 2.8125 } : null;
          this.say(this.curtain ? "Drag the curtain. Only the network named “curtain” was trained with one." : "No curtain.");
          this.draw();
        } }))),
        named("Frames a second", select("speed", SPEEDS.map((v) => [v, v]), () => this.writeAddress())),
        named("Imagines", select("feedback", [["binary", "from binary frames (psi > 0.4)"], ["grey", "from grey frames, the authors’"]], () => this.writeAddress())),
        named("Components at work", select("components", [[0, "as trained"], ...[2, 3, 4, 5, 6, 7, 8].map((v) => [v, v])], () => this.swap())),
        named("Effects of the others", select("effects", [["sum", "sum, as trained"], ["mean", "mean"]], () => this.swap())));
      const head = element("div", { class: "rnem-live-stage" }, this.views.box.figure,
        ...this.views.others[0].map((view) => view.figure), (this.views.note = element("p", { class: "rnem-live-note", hidden: true })),
        ...this.views.others[1].map((view) => view.figure));
      const parts = this.known.small ? [head, bar, this.views.status, this.views.run] : [
        scenes, head, bar, this.views.status,
        element("div", { class: "rnem-live-inside" },
          element("figure", {}, element("figcaption", {}, element("span", {}, "Each component k: what it expects, ψ", element("sub", {}, "k"), " (white), and what it claims, γ", element("sub", {}, "k"), " (its colour)")),
            this.views.tiles, this.views.pixel),
          (this.views.attending = element("figure", { class: "rnem-live-attention" },
            element("figcaption", {}, "Attention: row listens to column"), this.views.attention, (this.views.most = element("span", { class: "rnem-live-number" }))))),
        element("figure", {}, this.views.strip), settings, this.views.run];
      this.place.append(element("div", { class: "rnem-live-body" }, ...parts));
    }

    /** Begin when in sight, pause out of sight. */
    watchSight() {
      if ("IntersectionObserver" in root)
        new IntersectionObserver((entries) => {
          this.insight = entries[entries.length - 1].isIntersecting;
          if (this.insight) this.wake();
          if (this.insight && this.watchers) this.play(this.playing);
        }).observe(this.place);
      else this.wake();
      document.addEventListener("visibilitychange", () => this.watchers && this.play(this.playing));
    }

    say(text) {
      this.views.status.textContent = text;
    }

    /** Controls show the settings, and the views have as many tiles as there are components. */
    settle() {
      const { settings, controls, views } = this;
      for (const name of ["run", "speed", "feedback", "components", "effects"]) controls[name].value = String(settings[name]);
      controls.heavy.value = settings.heavy ? "1" : "";
      controls.beside.checked = settings.beside;
      controls.curtain.checked = Boolean(this.curtain);
      controls.imagine.setAttribute("aria-pressed", String(this.mode === "imagine"));
      const { K, size, trained } = this.watchers[0].network, pairwise = this.watchers[0].run.config.model !== "nem";
      controls.effects.disabled = !pairwise || K === trained;
      controls.effects.title = K === trained ? "At the K of its training both are the same: choose other components at work." : "";
      controls.beside.disabled = !this.known.runs.some((run) => run.model === "nem" && run.data === this.described(settings.run).data && run.label !== settings.run);
      this.views.small.width = this.views.small.height = size;
      if (views.tiles.children.length !== K)
        views.tiles.replaceChildren(...Array.from({ length: K }, (_, k) => element("div", { class: "rnem-live-tile" },
          element("canvas", { width: size, height: size, role: "img", "aria-label": `psi of component ${k + 1}` }),
          element("canvas", { width: size, height: size, role: "img", "aria-label": `gamma of component ${k + 1}` }), element("span", {}, `${k + 1}`),
          element("div", { class: "rnem-live-numbers", hidden: true }, element("i"), element("pre")))));
      const run = this.watchers[0].run;
      views.run.replaceChildren("Running ", element("code", {}, run.label), ", key ", element("code", {}, run.key),
        ", SHA-256 of its weights ", element("code", { title: run.digest }, run.digest.slice(0, 16)),
        `, after ${run.sequences.toLocaleString("en")} training videos.`);
      for (const each of this.place.querySelectorAll("[data-scene]")) each.setAttribute("aria-pressed", String(each.dataset.scene === settings.scene));
    }

    // ---------------------------------------------------------------------------------------------------------- drawing

    draw() {
      if (!this.watchers) return;
      const frame = this.rendered(), { views } = this, imagining = this.mode === "imagine";
      this.drawBox(frame.features, imagining);
      views.note.hidden = this.watchers.length < 2;
      views.note.textContent = `The same balls, watched by N-EM (K = ${this.watchers.length > 1 ? this.watchers[1].network.K : ""}), ` +
        "whose components do not hear of each other.";
      views.others.forEach((pair, i) => {
        const watcher = this.watchers[i];
        for (const { figure } of pair) figure.hidden = !watcher;
        if (watcher) this.drawWatcher(pair, watcher, frame.features, imagining, i);
      });
      if (this.known.small) return;
      this.drawTiles(this.watchers[0]);
      this.drawAttention(this.watchers[0]);
      this.drawStrip();
      this.drawPixel(this.watchers[0], frame.features);
      const blank = this.watchers.some((watcher) => watcher.blank);
      const since = blank && !this.blank;
      if (this.blank && !blank) this.say("A pixel is on: from here on the components differ, and one of them takes the ball.");
      this.blank = blank;
      if (since)
        this.say("The box is blank. Without a pixel every component would get the same input, 0, and they would stay equal for " +
          "ever: so γ is drawn anew in every blank frame, which is the noise you see. Throw a ball.");
    }

    /** A frame enlarged onto a picture; returns the picture's context, in box units. */
    enlarge(canvas, rgb) {
      const { small } = this.views, size = small.width, context = canvas.getContext("2d");
      paint(small, size, rgb);
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, canvas.width, canvas.height);
      context.scale(canvas.width / world.BOX, canvas.height / world.BOX);
      this.markPixel(context, size);
      return context;
    }

    markPixel(context, size) {
      const cell = world.BOX / size, cross = this.cross ? this.cross[0] * size + this.cross[1] : null;
      for (const [pixel, colour] of [[this.pixel, "#ff3b6b"], [document.activeElement === this.views.box.made ? cross : null, "#ffffff"]]) {
        if (pixel === null) continue;
        context.lineWidth = 0.09;
        context.strokeStyle = colour;
        context.strokeRect((pixel % size) * cell - 0.05, Math.floor(pixel / size) * cell - 0.05, cell + 0.1, cell + 0.1);
      }
    }

    drawBox(features, imagining) {
      const { box } = this.views, context = this.enlarge(box.made, grey(imagining ? features.map((v) => 0.35 * v) : features));
      box.title.textContent = imagining ? "The box (not seen now)" : "The box: drag to throw a ball";
      if (this.curtain) {
        context.fillStyle = "rgba(110, 110, 140, 0.55)";
        context.fillRect(this.curtain.x, this.curtain.y, world.CURTAIN_SIDE, world.CURTAIN_SIDE);
        this.outlines(context, this.balls.filter((b) => world.covers(this.curtain, b.y, b.x)));
      }
      if (this.drag && !this.drag.curtain) this.drawArrow(context, this.drag);
      if (!this.balls.length && !this.drag) {
        context.fillStyle = "#9a9a9a";
        context.font = "0.7px sans-serif";
        context.textAlign = "center";
        context.fillText("drag to throw a ball", 5, 5.2);
      }
    }

    drawArrow(context, { from, to }) {
      const dy = to.y - from.y, dx = to.x - from.x, { clipped } = world.clipped(dy * THROW, dx * THROW);
      context.strokeStyle = context.fillStyle = clipped ? "#ff5a36" : "#ffd23f";
      context.lineWidth = 0.14;
      context.beginPath();
      context.arc(from.x, from.y, this.settings.heavy ? 1 : 0.8, 0, 7);
      context.moveTo(from.x, from.y);
      context.lineTo(to.x, to.y);
      context.stroke();
      const angle = Math.atan2(dy, dx);
      context.beginPath();
      for (const turn of [0, 2.6, -2.6]) context.lineTo(to.x + 0.45 * Math.cos(angle + turn), to.y + 0.45 * Math.sin(angle + turn));
      context.fill();
    }

    outlines(context, balls) {
      context.setLineDash([0.22, 0.16]);
      context.lineWidth = 0.09;
      context.strokeStyle = "#ffd23f";
      for (const { y, x, radius } of balls) {
        context.beginPath();
        context.arc(x, y, radius, 0, 7);
        context.stroke();
      }
      context.setLineDash([]);
    }

    drawWatcher([seen, grouped], watcher, features, imagining, i) {
      const best = watcher.prediction(), name = MODEL_NAMES[watcher.run.config.model], last = this.history[this.history.length - 1];
      const number = (values, digits) => (last && Number.isFinite(values[i]) ? values[i].toFixed(digits) : "–");
      const context = this.enlarge(seen.made, grey(best)), mask = watcher.blank ? best.map(() => 0.5) : imagining ? best : features;
      if (imagining) this.outlines(context, this.balls);
      seen.title.textContent = imagining ? `${name} imagines: ${watcher.imagined}` : `${name} expects`;
      seen.extra.textContent = last ? `BCE ${number(last.bce, 0)}` : "";
      this.enlarge(grouped.made, grouping(watcher.state.gamma, mask, watcher.colours()));
      grouped.title.textContent = "Its grouping";
      grouped.extra.textContent = last ? `ARI ${number(last.ari, 2)}` : "";
    }

    drawTiles(watcher) {
      const { K, size } = watcher.network, { psi, gamma } = watcher.state, N = size * size, colours = watcher.colours();
      [...this.views.tiles.children].forEach((tile, k) => {
        const [expects, claims] = tile.children;
        tile.style.borderColor = css(colours[k]);
        const marked = (rgb) => (p) => (p === this.pixel ? [255, 59, 107] : rgb(p));
        paint(expects, size, marked(grey(psi.subarray(k * N, (k + 1) * N))));
        paint(claims, size, marked((p) => colours[k].map((c) => c * gamma[k * N + p])));
      });
    }

    drawAttention(watcher) {
      const { attention: canvas, attending } = this.views, { K } = watcher.network, { attention } = watcher.state, colours = watcher.colours();
      attending.hidden = watcher.run.config.model !== "rnem";
      const context = canvas.getContext("2d"), cell = canvas.width / (K + 1), ink = getComputedStyle(this.place).color;
      // On a fixed scale, dark from 0.5 on, so that frames can be compared.
      const most = attention ? attention.reduce((a, b) => Math.max(a, b), 0) : 0;
      this.views.most.textContent = most ? `largest: ${most.toFixed(2)}` : "";
      context.clearRect(0, 0, canvas.width, canvas.height);
      for (let k = 0; k < K; k++) {
        context.globalAlpha = 1;
        context.fillStyle = css(colours[k]);
        context.fillRect(cell * (k + 1) + 1, cell * 0.55, cell - 2, cell * 0.4);
        context.fillRect(cell * 0.55, cell * (k + 1) + 1, cell * 0.4, cell - 2);
        for (let i = 0; i < K; i++) {
          context.globalAlpha = i === k ? 0.05 : 0.1;
          context.fillStyle = ink;
          context.fillRect(cell * (i + 1) + 1, cell * (k + 1) + 1, cell - 2, cell - 2);
          context.globalAlpha = i === k || !attention ? 0 : Math.min(attention[k * K + i] / 0.5, 1);
          context.fillStyle = MODEL_COLOURS.rnem;
          context.fillRect(cell * (i + 1) + 1, cell * (k + 1) + 1, cell - 2, cell - 2);
        }
      }
      context.globalAlpha = 1;
    }

    drawStrip() {
      const { strip } = this.views, context = strip.getContext("2d"), ink = getComputedStyle(this.place).color;
      const width = Math.max(strip.clientWidth, 300), sharp = root.devicePixelRatio || 1;
      if (strip.width !== Math.round(width * sharp)) strip.width = Math.round(width * sharp);
      if (strip.height !== Math.round(150 * sharp)) strip.height = Math.round(150 * sharp);
      context.setTransform(sharp, 0, 0, sharp, 0, 0);
      const left = 34, right = width - 76, at = (t) => left + ((right - left) * t) / (KEPT - 1), size = this.watchers[0].network.size;
      const panels = [
        { name: "BCE (nats)", top: 10, bottom: 84, most: 150 * (size / 32) ** 2, value: (row, i) => row.bce[i] },
        { name: "ARI", top: 98, bottom: 142, most: 1, value: (row, i) => row.ari[i] },
      ];
      context.clearRect(0, 0, width, 150);
      context.font = "12px sans-serif";
      context.fillStyle = "#E69F00";
      context.globalAlpha = 0.22;
      this.history.forEach((row, t) => row.imagined && context.fillRect(at(t - 0.5), 4, at(1) - at(0), 142));
      context.globalAlpha = 1;
      for (const { name, top, bottom, most, value } of panels) {
        const height = (v) => bottom - (bottom - top) * Math.min(Math.max(v / most, 0), 1);
        context.strokeStyle = context.fillStyle = ink;
        context.lineWidth = 1;
        context.globalAlpha = 0.35;
        context.strokeRect(left + 0.5, top + 0.5, right - left, bottom - top);
        context.globalAlpha = 1;
        context.textAlign = "right";
        context.fillText(String(most), left - 5, top + 9);
        context.fillText("0", left - 5, bottom);
        context.textAlign = "left";
        context.fillText(name, right + 8, top + 12);
        this.watchers.forEach((watcher, i) => {
          context.strokeStyle = MODEL_COLOURS[watcher.run.config.model];
          context.lineWidth = 2;
          context.setLineDash(i ? [6, 3] : []);
          context.beginPath();
          let pen = false;
          this.history.forEach((row, t) => {
            const v = value(row, i);
            if (Number.isFinite(v)) pen ? context.lineTo(at(t), height(v)) : context.moveTo(at(t), height(v));
            pen = Number.isFinite(v);
          });
          context.stroke();
          context.setLineDash([]);
          if (name !== "BCE (nats)") return;
          context.fillStyle = context.strokeStyle;
          context.fillText(MODEL_NAMES[watcher.run.config.model].slice(0, 11), right + 8, top + 32 + 18 * i);
        });
      }
    }

    /** The E-step of the chosen pixel: its line of text, and the numbers below each component's tile. */
    drawPixel(watcher, features) {
      const { pixel: place, tiles } = this.views, { K, size } = watcher.network, { psi, gamma } = watcher.state;
      const p = this.pixel, N = size * size, imagining = this.mode === "imagine";
      const x = p === null ? 0 : imagining ? model.FEEDBACKS[this.settings.feedback].target(psi, K)[p] : features[p];
      [...tiles.children].forEach((tile, k) => {
        const numbers = tile.lastElementChild, share = gamma[k * N + p];
        numbers.hidden = p === null;
        if (p === null) return;
        const expected = psi[k * N + p], weight = x * expected + (1 - x) * (1 - expected) + model.EPSILON;
        numbers.firstElementChild.style.width = `${100 * share}%`;
        numbers.lastElementChild.textContent = `ψ ${expected.toFixed(3)}\np ${weight.toFixed(3)}\nγ ${share.toFixed(3)}`;
      });
      if (p === null) return place.replaceChildren("Click a pixel of any picture: who claims it, and why?");
      const where = `E-step at row ${Math.floor(p / size)}, column ${p % size}: the ${imagining ? "imagined" : "true"} frame is `;
      place.replaceChildren(where, element("strong", {}, x ? "on" : "off"), " there, so ",
        element("em", {}, x ? "p = ψ + 10⁻⁶" : "p = 1 − ψ + 10⁻⁶"), ", and γ is p over the sum of all p. ",
        element("button", { type: "button", click: () => this.inspect(null) }, "close"));
    }
  }

  /** Every widget of the page; the first one follows the address, #live&scene=eight&... */
  function begin() {
    root.RNEM.widgets = [];
    for (const place of document.querySelectorAll(".rnem-live[data-live]")) {
      const known = JSON.parse(place.dataset.live);
      if (!root.RNEM.widgets.length && location.hash.startsWith("#live&")) known.start = location.hash.slice(6);
      root.RNEM.widgets.push(new Widget(place, known));
    }
    addEventListener("hashchange", () => {
      const widget = root.RNEM.widgets[0];
      if (!widget || !location.hash.startsWith("#live&")) return;
      Object.assign(widget.settings, { scene: "four", seed: 8, run: widget.known.runs[0].label, beside: false, components: 0,
        effects: "sum", feedback: "binary", speed: 12, imagine: 0, stop: 0, heavy: false });
      widget.read(location.hash.slice(6));
      widget.place.scrollIntoView({ block: "start" });
      widget.again(true).then(() => widget.play(widget.motion));
    });
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})(window);
