// The page's box: a reader throws balls, networks watch them (model.js, world.js), and everything they hold is drawn.
//
// Every <div class="rnem-live" data-live="{...}"> becomes a widget; rnem.live.sphinx writes it. A widget has a box
// (balls, curtain), one or two watchers (a network and its state) and settings; views.js draws it after each frame.
(function (root) {
  "use strict";

  const { model, world, views } = root.RNEM, { element } = views;
  const STRIDE = 2; // simulator steps a frame, as in the laptop's videos
  const THROW = 0.13; // speed, box units a step, of a drag of one box unit
  const CLICK = 0.3; // box units: a shorter drag is a click
  const SPEEDS = [2, 6, 12, 24]; // frames a second
  /** What the address may change; a number stays a number. */
  const DEFAULTS = {
    scene: "four", seed: 8, videos: "balls4mass", video: 0, run: "", beside: false, components: 0, effects: "sum",
    feedback: "binary", speed: 12, imagine: 0, stop: 0, heavy: false,
  };

  const ball = (kind, y, x, vy, vx) => ({ ...kind, y, x, vy, vx, touched: false });
  const scattered = (count) => ({ seed }) =>
    ({ balls: world.scatter(count, world.random(seed), [world.LIGHT, world.HEAVY], 1 / 3, 1.25) });

  /** One of the book's test videos, by data set and number: {balls, curtain}. */
  function testVideo({ videos, video }) {
    const there = root.RNEM_VIDEOS[videos] || root.RNEM_VIDEOS.balls4mass, { balls, curtain } = there[video % there.length];
    const balls_ = balls.map(([y, x, vy, vx, radius, mass]) => ball({ radius, mass }, y, x, vy, vx));
    return { balls: balls_, curtain: curtain && { y: curtain[0], x: curtain[1] } };
  }

  /** Prepared boxes: what stands on the button, what to look for, and a box from the settings. */
  const SCENES = {
    four: {
      name: "Four balls", box: scattered(4),
      say: "As in training. Within ten or twenty frames nearly every ball has a colour of its own.",
    },
    collision: {
      name: "A collision", say: "A heavy ball and a light one meet at frame 14. Watch the attention matrix.",
      box: () => ({ balls: [ball(world.HEAVY, 4.8, 1.4, 0, 0.08), ball(world.LIGHT, 5.4, 8.6, 0, -0.12)] }),
    },
    five: { name: "Five balls", say: "One more than any training video had.", box: scattered(5) },
    eight: { name: "Eight balls", say: "Twice as many balls as in training.", box: scattered(8) },
    curtain: {
      name: "The curtain",
      box: ({ seed }) => ({
        balls: world.scatter(3, world.random(seed), [world.CURTAINED], 1 / 2, 1.25), curtain: { y: 2.8125, x: 2.8125 },
      }),
      say: "Behind the curtain the frame is off, and off is the right prediction. Watch whether a ball is expected " +
        "where it comes out, and whether it keeps its colour.",
    },
    test: { name: "A test video", say: "One of the videos that the book measures on.", box: testVideo },
    empty: { name: "Empty box", say: "Drag to throw the first ball.", box: () => ({ balls: [] }) },
  };

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
     * One step: from `frame` to what the next will be, and the E-step against it. A frame without a pixel gives every
     * component the same input, 0, so that equal states stay equal: gamma is drawn anew until a pixel is seen.
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

    /** A colour each; grey for a component that models the background. */
    colours() {
      const { K } = this.network, total = this.shares.reduce((a, b) => a + b, 0);
      const behind = (k) => K > 1 && this.shares[k] > 0.5 * total;
      return views.COLOURS.slice(0, K).map((colour, k) => (behind(k) ? views.GREY : colour));
    }
  }

  // ------------------------------------------------------------------------------------------------------------ widget

  class Widget {
    /** `known` is what the directive knows: folder, runs, the state to start with, whether it is small. */
    constructor(place, known) {
      this.place = place;
      this.known = known;
      this.motion = !matchMedia("(prefers-reduced-motion: reduce)").matches;
      Object.assign(this, { playing: false, insight: false, history: [], pixel: null, cross: null, drag: null });
      this.read(known.start);
      this.build();
      // The run is loaded when the box first comes into sight.
      this.loading = new Promise((resolve) => { this.wake = resolve; }).then(() => this.start());
      this.watchSight();
    }

    // -------------------------------------------------------------------------------------------- settings and address

    /** The settings that a text such as scene=eight&components=8 means, all others as they are by default. */
    read(text) {
      const given = new URLSearchParams(text || ""), { runs } = this.known;
      this.settings = { ...DEFAULTS, run: runs[0].label };
      for (const [name, value] of given) {
        const kind = typeof DEFAULTS[name];
        if (kind === "string") this.settings[name] = value;
        if (kind === "number" && Number.isFinite(Number(value))) this.settings[name] = Number(value);
        if (kind === "boolean") this.settings[name] = value === "1";
      }
      if (!SCENES[this.settings.scene]) this.settings.scene = "four";
      if (!given.has("run")) this.settings.run = this.suited();
      if (!runs.some((run) => run.label === this.settings.run)) this.settings.run = runs[0].label;
    }

    /** The run for a scene: the first one, and for curtains the one that was trained with them. */
    suited() {
      const { scene, videos } = this.settings, { runs } = this.known;
      const hides = scene === "curtain" || (scene === "test" && videos.includes("curtain"));
      return ((hides && runs.find((run) => run.data.includes("curtain"))) || runs[0]).label;
    }

    /** What an address must say to show the same. */
    address() {
      const usual = { ...DEFAULTS, run: this.known.runs[0].label };
      const told = Object.entries(this.settings).filter(([name, value]) => value !== usual[name]);
      return told.map(([name, value]) => `${name}=${encodeURIComponent(value === true ? 1 : value)}`).join("&");
    }

    /** The first widget of a page keeps its settings in the address. */
    writeAddress() {
      if (this !== root.RNEM.widgets[0] || this.known.small) return;
      try {
        history.replaceState(null, "", "#live&" + this.address());
      } catch (error) { /* a page that may not change its address works without */ }
    }

    /** What the page knows of a run before it is loaded. */
    described(label) {
      return this.known.runs.find((run) => run.label === label);
    }

    /** A run's script, loaded when it is first wanted. */
    fetchRun(label) {
      const there = (root.RNEM_RUNS || {})[label];
      if (there) return Promise.resolve(there);
      this.say(`Loading ${label} …`);
      return new Promise((resolve, reject) => {
        const source = this.known.folder + this.described(label).file;
        const fail = () => {
          this.say(`${source} cannot be loaded.`);
          reject(new Error(`${source} cannot be loaded`));
        };
        document.head.append(element("script", { src: source, load: () => resolve(root.RNEM_RUNS[label]), error: fail }));
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

    /** The N-EM that can be put beside the chosen run: of the same data, where there is one of the same budget; or none. */
    rival() {
      const { run } = this.settings, { data, profile } = this.described(run);
      const others = this.known.runs.filter((other) => other.model === "nem" && other.data === data && other.label !== run);
      return others.find((other) => other.profile === profile) || others[0];
    }

    /** A watcher for the chosen run, and one for N-EM where it is to be beside it. */
    async loadRuns() {
      const { settings } = this, rival = this.rival();
      if (!rival) settings.beside = false;
      const labels = [settings.run, ...(settings.beside ? [rival.label] : [])];
      const runs = await Promise.all(labels.map((label) => this.fetchRun(label)));
      this.watchers = runs.map((run, i) => new Watcher(run, i ? {} : settings, world.random(settings.seed + 1000)));
      this.history = [];
      this.settle();
    }

    /** The scene from its beginning. */
    setScene() {
      const { settings } = this, scene = SCENES[settings.scene], { balls, curtain } = scene.box(settings);
      Object.assign(this, { balls, curtain: curtain || null, frame: 0, mode: "look", blank: false, history: [] });
      for (const watcher of this.watchers) {
        watcher.next = world.random(settings.seed + 1000); // so that an address shows the same again
        watcher.forget();
      }
      this.say(scene.say);
      this.settle();
    }

    /** A scene by its button, once more with other balls; with the run that it is for. */
    async choose(name) {
      const { settings } = this, before = settings.run;
      if (settings.scene === name) {
        settings.seed++;
        settings.video++;
      }
      Object.assign(settings, { scene: name, imagine: 0, stop: 0 });
      if (this.described(before).data !== this.described(this.suited()).data) settings.run = this.suited();
      if (before !== settings.run) settings.components = 0;
      await this.again(before !== settings.run);
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
      this.mode = "look";
      await this.loadRuns();
      this.say("Another network, on the same balls: it begins without a memory.");
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
      if (settings.imagine && settings.imagine === this.frame && this.mode === "look") this.imagine(true);
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
      if (this.history.length > views.KEPT) this.history.shift();
      this.frame++;
      if (settings.stop && this.frame === settings.stop) this.play(false);
    }

    /** Begin to imagine, or look again. */
    imagine(on) {
      this.mode = on ? "imagine" : "look";
      this.controls.imagine.setAttribute("aria-pressed", String(on));
      this.say(on
        ? "Imagining: the network reads its own prediction and no longer sees the box. The outlines are the true balls."
        : "Looking again.");
    }

    /** One frame further, and a pause. */
    single() {
      this.play(false);
      this.tick();
      this.draw();
    }

    /** Imagine from this frame on, which the address then says, or look again. */
    toggleImagining() {
      const on = this.mode !== "imagine";
      Object.assign(this.settings, { imagine: on ? this.frame : 0, stop: 0 });
      this.imagine(on);
      this.writeAddress();
      this.draw();
    }

    /** A curtain to drag, or none. */
    hang(on) {
      this.curtain = on ? { y: 2.8125, x: 2.8125 } : null;
      this.say(on ? "Drag the curtain. Only the network named “curtain” was trained with one." : "No curtain.");
      this.draw();
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

    /** What is thrown: as heavy as chosen; balls behind curtains were all alike. */
    kind() {
      const curtained = this.described(this.settings.run).data.includes("curtain");
      return curtained ? world.CURTAINED : this.settings.heavy ? world.HEAVY : world.LIGHT;
    }

    /** A ball thrown from (y, x) by a drag of (dy, dx) box units; a ball that is there is pushed instead. */
    throwBall(y, x, dy, dx) {
      const thrown = world.clipped(dy * THROW, dx * THROW);
      const there = this.balls.find((b) => Math.hypot(b.y - y, b.x - x) < b.radius);
      if (there) Object.assign(there, { vy: thrown.vy, vx: thrown.vx });
      else if (this.balls.length >= world.MOST) return this.say(`There is room for ${world.MOST} balls.`);
      else {
        const kind = this.kind();
        const inside = (v) => Math.min(Math.max(v, kind.radius), world.BOX - kind.radius);
        this.balls.push(ball(kind, inside(y), inside(x), thrown.vy, thrown.vx));
      }
      this.say(thrown.clipped
        ? `Slowed down to ${world.FASTEST} box units a step: training held hardly anything faster.`
        : this.mode === "imagine" ? "Thrown; but the network is imagining, and does not see it." : "Thrown.");
      this.draw();
    }

    /** From a random free place in a random direction: for the buttons, and without a mouse. */
    throwAnywhere(heavy) {
      const next = Math.random, angle = 2 * Math.PI * next();
      const anywhere = () => ({ y: 1.5 + 7 * next(), x: 1.5 + 7 * next() });
      const taken = ({ y, x }) => this.balls.some((b) => Math.hypot(b.y - y, b.x - x) < b.radius);
      let place = anywhere();
      while (taken(place)) place = anywhere(); // on a ball it would be a push; eight cover half of the places at most
      this.settings.heavy = heavy;
      this.settle();
      this.throwBall(place.y, place.x, 1.6 * Math.sin(angle), 1.6 * Math.cos(angle));
    }

    /** Where in the box (y, x) a pointer is. */
    spot(event, canvas) {
      const area = canvas.getBoundingClientRect(), share = (at, from, length) => ((at - from) / length) * world.BOX;
      return { y: share(event.clientY, area.top, area.height), x: share(event.clientX, area.left, area.width) };
    }

    pixelAt({ y, x }) {
      const { size } = this.watchers[0].network;
      const index = (v) => Math.min(Math.max(Math.floor((v / world.BOX) * size), 0), size - 1);
      return index(y) * size + index(x);
    }

    inspect(pixel) {
      this.pixel = pixel;
      this.draw();
    }

    /** The box is drawn into: a drag throws a ball or moves the curtain, a click chooses a pixel. */
    listen(canvas) {
      canvas.addEventListener("pointerdown", (event) => {
        if (!this.watchers || event.button) return;
        event.preventDefault();
        canvas.focus({ preventScroll: true });
        canvas.setPointerCapture(event.pointerId);
        const from = this.spot(event, canvas), held = this.curtain && world.covers(this.curtain, from.y, from.x);
        this.drag = { from, to: from, curtain: held ? { ...this.curtain } : null };
      });
      canvas.addEventListener("pointermove", (event) => {
        if (!this.drag) return;
        this.drag.to = this.spot(event, canvas);
        if (this.drag.curtain) this.moveCurtain(this.drag);
        this.draw();
      });
      canvas.addEventListener("pointercancel", () => { this.drag = null; });
      canvas.addEventListener("pointerup", (event) => {
        if (!this.drag) return;
        const { from, curtain } = this.drag, to = this.spot(event, canvas), dy = to.y - from.y, dx = to.x - from.x;
        this.drag = null;
        if (Math.hypot(dy, dx) < CLICK) this.inspect(this.pixelAt(from));
        else if (!curtain) this.throwBall(from.y, from.x, dy, dx);
      });
      canvas.addEventListener("keydown", (event) => this.key(event));
    }

    /** The curtain follows the pointer; its corner stays on the grid of the authors' frames. */
    moveCurtain({ from, to, curtain }) {
      const cell = world.BOX / 64, inside = (v) => Math.min(Math.max(v, 0), world.BOX - world.CURTAIN_SIDE);
      const place = (v) => Math.round(inside(v) / cell) * cell;
      this.curtain = { y: place(curtain.y + to.y - from.y), x: place(curtain.x + to.x - from.x) };
    }

    /** Keys in the box: arrows move a cross; Enter shows its pixel; L and H throw; Space, period, I and F. */
    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.watchers) return;
      const { size } = this.watchers[0].network, at = this.cross || [size >> 1, size >> 1], { controls } = this;
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      const actions = {
        Enter: () => this.inspect(at[0] * size + at[1]), " ": () => controls.play.click(),
        ".": () => controls.step.click(), i: () => controls.imagine.click(), f: () => this.forget(),
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
      const { picture, canvas } = views;
      const keys = "The box with the true balls. Drag to throw one. Keys: arrows and Enter show a pixel, L and H throw.";
      const pair = () => [
        picture("prediction", "What is expected of the next frame"),
        picture("grouping", "Which component claims which pixel"),
      ];
      this.views = {
        box: picture("box", keys, { tabindex: 0, role: "application" }), others: [pair(), pair()],
        note: element("p", { class: "rnem-live-note", hidden: true }),
        tiles: element("div", { class: "rnem-live-tiles" }), attention: canvas(160, "Attention between components"),
        largest: element("span", { class: "rnem-live-number" }),
        strip: canvas(150, "BCE and ARI of the last frames", { class: "rnem-live-strip" }),
        pixel: element("p", { class: "rnem-live-pixel" }), run: element("p", { class: "rnem-live-run" }),
        status: element("p", { class: "rnem-live-status", role: "status" }), small: element("canvas", {}),
      };
      this.controls = {};
      this.listen(this.views.box.canvas);
      for (const view of this.views.others.flat())
        view.canvas.addEventListener("click", (event) => this.inspect(this.pixelAt(this.spot(event, view.canvas))));
      const parts = this.known.small
        ? [this.stage(), this.bar(), this.views.status, this.views.run]
        : [this.scenes(), this.stage(), this.bar(), this.views.status, this.inside(),
          element("figure", {}, this.views.strip), this.choices(), this.views.run];
      this.place.append(element("div", { class: "rnem-live-body" }, ...parts));
    }

    button(text, action, attributes) {
      return element("button", { type: "button", click: action, ...attributes }, text);
    }

    scenes() {
      const curtained = this.known.runs.some((run) => run.data.includes("curtain"));
      const there = Object.entries(SCENES).filter(([name]) => name !== "curtain" || curtained);
      return element("div", { class: "rnem-live-bar" }, ...there.map(([name, scene]) =>
        this.button(scene.name, () => this.choose(name), { "data-scene": name, title: "Pressed again: other balls" })));
    }

    stage() {
      const [first, second] = this.views.others.map((pair) => pair.map((view) => view.figure));
      return element("div", { class: "rnem-live-stage" }, this.views.box.figure, ...first, this.views.note, ...second);
    }

    bar() {
      const controls = this.controls;
      controls.play = this.button("▶ Play", () => this.play(!this.playing), { class: "rnem-live-main" });
      controls.step = this.button("One step", () => this.single());
      controls.imagine = this.button("Imagine", () => this.toggleImagining(), {
        class: "rnem-live-imagine", "aria-pressed": "false", title: "Feed the network its own predictions",
      });
      controls.forget = this.button("Forget", () => this.forget(), { title: "theta = 0, gamma drawn anew" });
      return element("div", { class: "rnem-live-bar" }, controls.play, controls.step, controls.imagine, controls.forget,
        this.button("+ light ball", () => this.throwAnywhere(false)),
        this.button("+ heavy ball", () => this.throwAnywhere(true)));
    }

    inside() {
      const k = () => element("sub", {}, "k"), { tiles, pixel, attention, largest } = this.views;
      const what = element("span", {}, "Each component k: what it expects, ψ", k(), " (white), and what it claims, γ", k(),
        " (its colour)");
      this.views.attending = element("figure", { class: "rnem-live-attention" },
        element("figcaption", {}, "Attention: row listens to column"), attention, largest);
      return element("div", { class: "rnem-live-inside" },
        element("figure", {}, element("figcaption", {}, what), tiles, pixel), this.views.attending);
    }

    choices() {
      const swap = () => this.swap(), keep = () => this.writeAddress(), numbers = [2, 3, 4, 5, 6, 7, 8].map((v) => [v, v]);
      const runs = this.known.runs.map((run) => [run.label, views.MODEL_NAMES[run.model] +
        (run.profile === "long" ? " (long)" : "") + `, K = ${run.components}` + (run.data.includes("curtain") ? ", curtain" : "")]);
      const feedbacks = [["binary", "from binary frames (ψ > 0.4)"], ["grey", "from grey frames, the authors’"]];
      return element("div", { class: "rnem-live-settings" },
        this.select("Network", "run", runs, () => {
          this.settings.components = 0;
          swap();
        }),
        this.check("N-EM beside it", "beside", () => {
          this.settings.beside = this.controls.beside.checked;
          swap();
        }),
        this.select("Balls I throw", "heavy", [["false", "light"], ["true", "heavy"]], keep),
        this.check("Curtain", "curtain", () => this.hang(this.controls.curtain.checked)),
        this.select("Frames a second", "speed", SPEEDS.map((v) => [v, v]), keep),
        this.select("Imagines", "feedback", feedbacks, keep),
        this.select("Components at work", "components", [[0, "as trained"], ...numbers], swap),
        this.select("Effects of the others", "effects", [["sum", "sum, as trained"], ["mean", "mean"]], swap));
    }

    /** A setting with several values. */
    select(text, name, options, change) {
      const parts = options.map(([value, label]) => element("option", { value }, label));
      const made = (this.controls[name] = element("select", { change: () => {
        const kind = typeof DEFAULTS[name];
        this.settings[name] = kind === "number" ? Number(made.value) : kind === "boolean" ? made.value === "true" : made.value;
        change();
      } }, ...parts));
      return element("label", {}, `${text} `, made);
    }

    check(text, name, change) {
      this.controls[name] = element("input", { type: "checkbox", change });
      return element("label", {}, `${text} `, this.controls[name]);
    }

    /** Begin when in sight, pause out of sight. */
    watchSight() {
      new IntersectionObserver((entries) => {
        this.insight = entries[entries.length - 1].isIntersecting;
        if (this.insight) this.wake();
        if (this.watchers) this.play(this.playing);
      }).observe(this.place);
      document.addEventListener("visibilitychange", () => this.watchers && this.play(this.playing));
    }

    say(text) {
      this.views.status.textContent = text;
    }

    /** Controls show the settings, and there are as many tiles as components. */
    settle() {
      const { settings, controls } = this, [{ network, run }] = this.watchers, same = network.K === network.trained;
      controls.imagine.setAttribute("aria-pressed", String(this.mode === "imagine"));
      this.views.small.width = this.views.small.height = network.size;
      this.views.run.replaceChildren("Running ", element("code", {}, run.label), ", key ", element("code", {}, run.key),
        ", SHA-256 of its weights ", element("code", { title: run.digest }, run.digest.slice(0, 16)),
        `, after ${run.sequences.toLocaleString("en")} training videos.`);
      if (this.known.small) return;
      for (const name of ["run", "heavy", "speed", "feedback", "components", "effects"])
        controls[name].value = String(settings[name]);
      controls.beside.checked = settings.beside;
      controls.beside.disabled = !this.rival();
      controls.curtain.checked = Boolean(this.curtain);
      controls.effects.disabled = !network.interaction || same;
      controls.effects.title = same ? "Both are the same at the K of the training: choose other components at work." : "";
      if (this.views.tiles.children.length !== network.K)
        this.views.tiles.replaceChildren(...Array.from({ length: network.K }, (_, k) => views.tile(k, network.size)));
      for (const each of this.place.querySelectorAll("[data-scene]"))
        each.setAttribute("aria-pressed", String(each.dataset.scene === settings.scene));
    }

    // ---------------------------------------------------------------------------------------------------------- drawing

    draw() {
      if (!this.watchers) return;
      const { features } = this.rendered(), [first, second] = this.watchers;
      this.drawBox(features);
      this.views.others.forEach((pair, i) => {
        for (const { figure } of pair) figure.hidden = !this.watchers[i];
        if (this.watchers[i]) this.drawWatcher(pair, this.watchers[i], features, i);
      });
      this.views.note.hidden = !second;
      if (second) this.views.note.textContent = this.rivalry(first, second);
      if (!this.known.small) this.drawInside(first, features);
      this.explainBlank();
    }

    /** What stands beside N-EM's pictures; unequal training is said. */
    rivalry(first, second) {
      const count = ({ run }) => run.sequences.toLocaleString("en");
      const unequal = first.run.sequences === second.run.sequences ? "" :
        ` Their budgets differ: it was trained on ${count(second)} videos, the network above on ${count(first)}.`;
      return `The same balls, watched by N-EM (K = ${second.network.K}), whose components do not hear of each other.${unequal}`;
    }

    /** Say once why the picture is noise, and once when it no longer is. */
    explainBlank() {
      const blank = this.watchers.some((watcher) => watcher.blank);
      if (blank && !this.blank)
        this.say("The box is blank. Without a pixel every component would get the same input, 0, and they would stay " +
          "equal for ever: so γ is drawn anew in every blank frame, which is the noise you see. Throw a ball.");
      if (!blank && this.blank)
        this.say("A pixel is on: from here on the components differ, and one of them takes the ball.");
      this.blank = blank;
    }

    enlarge(canvas, rgb) {
      const { small, box } = this.views, focused = this.cross && document.activeElement === box.canvas;
      const cross = focused ? this.cross[0] * small.width + this.cross[1] : null;
      return views.enlarge(canvas, small, rgb, [[this.pixel, "#ff3b6b"], [cross, "#ffffff"]]);
    }

    drawBox(features) {
      const { box } = this.views, imagining = this.mode === "imagine", { drag } = this;
      const context = this.enlarge(box.canvas, views.grey(imagining ? features.map((v) => 0.35 * v) : features));
      const unseen = this.watchers[0].imagined;
      box.title.textContent = imagining ? `The box, unseen for ${unseen} frames` : "The box: drag to throw a ball";
      if (this.curtain) views.drapery(context, this.curtain, this.balls);
      if (drag && !drag.curtain) {
        const { clipped } = world.clipped((drag.to.y - drag.from.y) * THROW, (drag.to.x - drag.from.x) * THROW);
        views.arrow(context, drag.from, drag.to, this.kind().radius, clipped);
      } else if (!this.balls.length) views.caption(context, "drag to throw a ball");
    }

    drawWatcher([expects, claims], watcher, features, i) {
      const best = watcher.prediction(), imagining = this.mode === "imagine", last = this.history[this.history.length - 1];
      const name = views.MODEL_NAMES[watcher.run.config.model], { gamma } = watcher.state;
      const mask = watcher.blank ? best.map(() => 0.5) : imagining ? best : features;
      const number = (row, digits) => (last && Number.isFinite(row[i]) ? row[i].toFixed(digits) : "–");
      const context = this.enlarge(expects.canvas, views.grey(best));
      if (imagining) views.outlines(context, this.balls);
      this.enlarge(claims.canvas, views.grouping(gamma, mask, watcher.colours()));
      expects.title.textContent = `${name} ${imagining ? "imagines" : "expects"}`;
      expects.number.textContent = last ? `BCE ${number(last.bce, 0)}` : "";
      claims.title.textContent = "Its grouping";
      claims.number.textContent = last ? `ARI ${number(last.ari, 2)}` : "";
    }

    /** Tiles, attention, curves and the chosen pixel's E-step. */
    drawInside(watcher, features) {
      const { tiles, attention, attending, largest, strip } = this.views, ink = getComputedStyle(this.place).color;
      const colours = watcher.colours(), models = this.watchers.map((each) => each.run.config.model);
      views.drawTiles(tiles, watcher, colours, this.pixel);
      attending.hidden = watcher.run.config.model !== "rnem";
      const most = views.drawAttention(attention, watcher.state.attention, colours, ink);
      largest.textContent = most ? `largest: ${most.toFixed(2)}` : "";
      views.drawStrip(strip, this.history, models, watcher.network.size, ink);
      this.drawPixel(watcher, features);
    }

    drawPixel(watcher, features) {
      const { pixel: line, tiles } = this.views, { K, size } = watcher.network, p = this.pixel;
      const imagining = this.mode === "imagine", target = model.FEEDBACKS[this.settings.feedback].target;
      const x = p === null ? 0 : imagining ? target(watcher.state.psi, K)[p] : features[p];
      views.drawNumbers(tiles, watcher, p, x);
      if (p === null) return line.replaceChildren("Click a pixel of any picture: who claims it, and why?");
      const where = `row ${Math.floor(p / size)}, column ${p % size}`;
      line.replaceChildren(`E-step at ${where}: the ${imagining ? "imagined" : "true"} frame is `,
        element("strong", {}, x ? "on" : "off"), " there, so ", element("em", {}, x ? "p = ψ + 10⁻⁶" : "p = 1 − ψ + 10⁻⁶"),
        ", and γ is p over the sum of all p. ", this.button("close", () => this.inspect(null)));
    }
  }

  const ADDRESS = "#live&";

  /** Every widget of the page; the first one follows the address, #live&scene=eight&... */
  function begin() {
    const follows = () => location.hash.startsWith(ADDRESS) && location.hash.slice(ADDRESS.length);
    root.RNEM.widgets = [];
    for (const place of document.querySelectorAll(".rnem-live[data-live]")) {
      const known = JSON.parse(place.dataset.live), first = !root.RNEM.widgets.length;
      root.RNEM.widgets.push(new Widget(place, { ...known, start: (first && follows()) || known.start }));
    }
    addEventListener("hashchange", async () => {
      const [widget] = root.RNEM.widgets;
      if (!widget || !follows()) return;
      widget.place.scrollIntoView({ block: "start" });
      await widget.loading;
      widget.read(follows());
      await widget.again(true);
      widget.play(widget.motion);
    });
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})(window);
