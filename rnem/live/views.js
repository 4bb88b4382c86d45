// Pictures of what a network holds: frames, groupings, components, attention, curves. Nothing here keeps a state.
(function (root) {
  "use strict";

  const { model, world } = root.RNEM;
  const KEPT = 120; // frames in the curves
  const MOST_BCE = 150; // nats at 32 x 32 pixels, the top of the curve
  const DARK = 0.5; // attention from which on a cell is as dark as can be: a fixed scale, so that frames can be compared
  const GHOST = "#ffd23f", CHOSEN = [255, 59, 107];
  // As rnem.figures.style has them.
  const COLOURS = [
    [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [204, 121, 167], [200, 45, 35], [55, 85, 225],
    [185, 235, 165],
  ];
  const GREY = [82, 82, 82];
  const MODEL_COLOURS = { rnem: "#0072B2", rnem_noatt: "#56B4E9", nem: "#D55E00", rnn: "#CC79A7" };
  const MODEL_NAMES = { rnem: "R-NEM", rnem_noatt: "R-NEM without attention", nem: "N-EM", rnn: "RNN" };

  // ---------------------------------------------------------------------------------------------------------- elements

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

  /** A square canvas that a screen reader names. */
  function canvas(size, label, attributes) {
    return element("canvas", { width: size, height: size, role: "img", "aria-label": label, ...attributes });
  }

  /** A large picture with a title and a number above it: {figure, canvas, title, number}. */
  function picture(name, label, attributes) {
    const made = canvas(384, label, attributes), title = element("span");
    const number = element("span", { class: "rnem-live-number" });
    const figure = element("figure", { class: `rnem-live-${name}` }, element("figcaption", {}, title, number), made);
    return { figure, canvas: made, title, number };
  }

  /** The tile of component k: psi, gamma, its number, and room for an E-step's numbers. */
  function tile(k, size) {
    return element("div", { class: "rnem-live-tile" }, canvas(size, `psi of component ${k + 1}`),
      canvas(size, `gamma of component ${k + 1}`), element("span", {}, `${k + 1}`),
      element("div", { class: "rnem-live-numbers", hidden: true }, element("i"), element("pre")));
  }

  // ------------------------------------------------------------------------------------------------------------ pixels

  const css = (colour) => `rgb(${colour.join(",")})`;

  /** Write a frame, given as a function from a pixel's number to [r, g, b], to a canvas of as many pixels. */
  function paint(target, size, rgb) {
    const context = target.getContext("2d"), image = context.createImageData(size, size);
    for (let p = 0; p < size * size; p++) {
      const colour = rgb(p);
      for (let c = 0; c < 3; c++) image.data[4 * p + c] = colour[c];
      image.data[4 * p + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  /** Values in [0, 1] as grey. */
  function grey(values) {
    return (p) => {
      const v = Math.round(255 * values[p]);
      return [v, v, v];
    };
  }

  /** gamma mixes the components' colours, `mask` dims the rest: rnem.figures.pictures.grouping_rgb. */
  function grouping(gamma, mask, colours) {
    const N = mask.length;
    return (p) => {
      const rgb = [0, 0, 0], light = 0.12 + 0.88 * mask[p];
      for (let k = 0; k < colours.length; k++)
        for (let c = 0; c < 3; c++) rgb[c] += gamma[k * N + p] * colours[k][c] * light;
      return rgb;
    };
  }

  /** Paint a frame onto a picture, enlarged; returns its context in box units. `marks` are [pixel, colour]. */
  function enlarge(target, small, rgb, marks) {
    const size = small.width, cell = world.BOX / size, context = target.getContext("2d");
    paint(small, size, rgb);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, target.width, target.height);
    context.scale(target.width / world.BOX, target.height / world.BOX);
    context.lineWidth = 0.09;
    for (const [pixel, colour] of marks) {
      if (pixel === null) continue;
      context.strokeStyle = colour;
      context.strokeRect((pixel % size) * cell - 0.05, Math.floor(pixel / size) * cell - 0.05, cell + 0.1, cell + 0.1);
    }
    return context;
  }

  /** The true balls, dashed. */
  function outlines(context, balls) {
    context.setLineDash([0.22, 0.16]);
    context.lineWidth = 0.09;
    context.strokeStyle = GHOST;
    for (const { y, x, radius } of balls) {
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.stroke();
    }
    context.setLineDash([]);
  }

  /** The curtain, and what is behind it. */
  function drapery(context, curtain, balls) {
    context.fillStyle = "rgba(110, 110, 140, 0.55)";
    context.fillRect(curtain.x, curtain.y, world.CURTAIN_SIDE, world.CURTAIN_SIDE);
    outlines(context, balls.filter((ball) => world.covers(curtain, ball.y, ball.x)));
  }

  /** A throw that is being drawn, red where it is too fast. */
  function arrow(context, from, to, radius, fast) {
    const angle = Math.atan2(to.y - from.y, to.x - from.x);
    context.strokeStyle = context.fillStyle = fast ? "#ff5a36" : GHOST;
    context.lineWidth = 0.14;
    context.beginPath();
    context.arc(from.x, from.y, radius, 0, 7);
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    context.beginPath();
    for (const turn of [0, 2.6, -2.6])
      context.lineTo(to.x + 0.45 * Math.cos(angle + turn), to.y + 0.45 * Math.sin(angle + turn));
    context.fill();
  }

  /** A line of text in the middle of a picture. */
  function caption(context, text) {
    context.fillStyle = "#9a9a9a";
    context.font = "0.7px sans-serif";
    context.textAlign = "center";
    context.fillText(text, world.BOX / 2, world.BOX / 2);
  }

  // ------------------------------------------------------------------------------------------------ what is inside

  /** psi_k and gamma_k in every tile; the chosen pixel is red. */
  function drawTiles(tiles, { network, state }, colours, chosen) {
    const { size } = network, N = size * size, { psi, gamma } = state;
    const marked = (rgb) => (p) => (p === chosen ? CHOSEN : rgb(p));
    [...tiles.children].forEach((each, k) => {
      const [expects, claims] = each.children;
      each.style.borderColor = css(colours[k]);
      paint(expects, size, marked(grey(psi.subarray(k * N, (k + 1) * N))));
      paint(claims, size, marked((p) => colours[k].map((c) => c * gamma[k * N + p])));
    });
  }

  /** The E-step of pixel p, at which the frame is x, below each tile; nothing where p is null. */
  function drawNumbers(tiles, { network, state }, p, x) {
    const N = network.size ** 2;
    [...tiles.children].forEach((each, k) => {
      const numbers = each.lastElementChild, [share, text] = numbers.children;
      numbers.hidden = p === null;
      if (p === null) return;
      const psi = state.psi[k * N + p], gamma = state.gamma[k * N + p];
      const weight = x * psi + (1 - x) * (1 - psi) + model.EPSILON;
      share.style.width = `${100 * gamma}%`;
      text.textContent = `ψ ${psi.toFixed(3)}\np ${weight.toFixed(3)}\nγ ${gamma.toFixed(3)}`;
    });
  }

  /** att_ki as a matrix, row k listens to column i, with the components' colours at its edges; returns the largest. */
  function drawAttention(target, attention, colours, ink) {
    const K = colours.length, context = target.getContext("2d"), cell = target.width / (K + 1);
    const square = (row, column, alpha, colour) => {
      context.globalAlpha = alpha;
      context.fillStyle = colour;
      context.fillRect(cell * (column + 1) + 1, cell * (row + 1) + 1, cell - 2, cell - 2);
    };
    context.clearRect(0, 0, target.width, target.height);
    for (let k = 0; k < K; k++) {
      context.globalAlpha = 1;
      context.fillStyle = css(colours[k]);
      context.fillRect(cell * (k + 1) + 1, cell * 0.55, cell - 2, cell * 0.4);
      context.fillRect(cell * 0.55, cell * (k + 1) + 1, cell * 0.4, cell - 2);
      for (let i = 0; i < K; i++) {
        square(k, i, i === k ? 0.05 : 0.1, ink);
        if (attention && i !== k) square(k, i, Math.min(attention[k * K + i] / DARK, 1), MODEL_COLOURS.rnem);
      }
    }
    context.globalAlpha = 1;
    return attention ? attention.reduce((a, b) => Math.max(a, b), 0) : 0;
  }

  /** BCE and ARI of the last frames, a curve a model; frames that were imagined are shaded. */
  function drawStrip(target, history, models, size, ink) {
    const width = Math.max(target.clientWidth, 300), sharp = root.devicePixelRatio || 1, context = target.getContext("2d");
    if (target.width !== Math.round(width * sharp)) target.width = Math.round(width * sharp);
    if (target.height !== Math.round(150 * sharp)) target.height = Math.round(150 * sharp);
    const left = 38, right = width - 94, at = (t) => left + ((right - left) * t) / (KEPT - 1);
    context.setTransform(sharp, 0, 0, sharp, 0, 0);
    context.clearRect(0, 0, width, 150);
    context.font = "12px sans-serif";
    context.fillStyle = "#E69F00";
    context.globalAlpha = 0.22;
    history.forEach((row, t) => row.imagined && context.fillRect(at(t - 0.5), 4, at(1) - at(0), 142));
    context.globalAlpha = 1;
    const panels = [
      { name: "BCE (nats)", key: "bce", top: 10, bottom: 84, most: Math.round(MOST_BCE * (size / 32) ** 2), more: "≥" },
      { name: "ARI", key: "ari", top: 98, bottom: 142, most: 1, more: "" },
    ];
    for (const panel of panels) {
      drawAxes(context, panel, left, right, ink);
      models.forEach((name, i) => drawCurve(context, panel, history.map((row) => row[panel.key][i]), at, name, i));
    }
    context.textAlign = "left";
    models.forEach((name, i) => {
      context.fillStyle = MODEL_COLOURS[name];
      context.fillRect(right + 6, 37 + 18 * i, 14, 3);
      context.fillStyle = ink;
      context.fillText(name === "rnem_noatt" ? "no attention" : MODEL_NAMES[name], right + 25, 43 + 18 * i);
    });
  }

  function drawAxes(context, { name, top, bottom, most, more }, left, right, ink) {
    context.strokeStyle = context.fillStyle = ink;
    context.lineWidth = 1;
    context.globalAlpha = 0.35;
    context.strokeRect(left + 0.5, top + 0.5, right - left, bottom - top);
    context.globalAlpha = 1;
    context.textAlign = "right";
    context.fillText(`${more}${most}`, left - 5, top + 9);
    context.fillText("0", left - 5, bottom);
    context.textAlign = "left";
    context.fillText(name, right + 6, top + 12);
  }

  function drawCurve(context, { top, bottom, most }, values, at, name, i) {
    let pen = false;
    context.strokeStyle = MODEL_COLOURS[name];
    context.lineWidth = 2;
    context.setLineDash(i ? [6, 3] : []);
    context.beginPath();
    values.forEach((v, t) => {
      const height = bottom - (bottom - top) * Math.min(Math.max(v / most, 0), 1);
      if (Number.isFinite(v) && pen) context.lineTo(at(t), height);
      else if (Number.isFinite(v)) context.moveTo(at(t), height);
      pen = Number.isFinite(v);
    });
    context.stroke();
    context.setLineDash([]);
  }

  root.RNEM.views = {
    KEPT, COLOURS, GREY, MODEL_NAMES, element, canvas, picture, tile, grey, grouping, enlarge, outlines, drapery, arrow,
    caption, drawTiles, drawNumbers, drawAttention, drawStrip,
  };
})(window);
