// One step of the book's networks, as rnem.model.network and rnem.model.em define it, in float64 and without a library.
//
// Numbers lie in flat Float64Arrays. K components at N = H x W pixels: psi and gamma have K * N numbers, theta K * D.
// Images have their channels last, (component, row, column, channel), in which order the encoder's dense layer reads
// them. A network is made once from an exported run (`RNEM.model.load`); `RNEM.model.step` is a frame.
(function (root) {
  "use strict";

  const EPSILON = 1e-6; // of the E-step and of the clips in the loss
  const NORM_EPSILON = 1e-12;
  const ROLLOUT_THRESHOLD = 0.1; // of the E-step of the authors' rollout
  const BINARY_THRESHOLD = 0.4; // of a rollout that feeds binary frames back

  // ------------------------------------------------------------------------------------------------------- weights

  /** Bytes of a base64 text (atob is not everywhere). */
  function bytesOf(text) {
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const value = new Uint8Array(128);
    for (let i = 0; i < 64; i++) value[alphabet.charCodeAt(i)] = i;
    const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
    const bytes = new Uint8Array((text.length / 4) * 3 - padding);
    for (let i = 0, to = 0; i < text.length; i += 4) {
      const four =
        (value[text.charCodeAt(i)] << 18) | (value[text.charCodeAt(i + 1)] << 12) |
        (value[text.charCodeAt(i + 2)] << 6) | value[text.charCodeAt(i + 3)];
      for (let shift = 16; shift >= 0 && to < bytes.length; shift -= 8) bytes[to++] = (four >> shift) & 255;
    }
    return bytes;
  }

  /** The number that 16 bits stand for (IEEE 754 half precision). */
  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 0) return sign * fraction * Math.pow(2, -24);
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * Math.pow(2, exponent - 15);
  }

  /** The tensors of an exported run by name, each {shape, data}. */
  function tensorsOf(run) {
    const bytes = bytesOf(run.weights), tensors = {};
    let at = 0;
    for (const [name, shape] of run.tensors) {
      const data = new Float64Array(shape.reduce((a, b) => a * b, 1));
      for (let i = 0; i < data.length; i++, at += 2) data[i] = half(bytes[at] | (bytes[at + 1] << 8));
      tensors[name] = { shape, data };
    }
    if (at !== bytes.length) throw new Error(`${run.label}: ${bytes.length} bytes of weights, and ${at} are expected`);
    return tensors;
  }

  // -------------------------------------------------------------------------------------------------------- layers

  /** A matrix for `linear`: weight (outputs, inputs), bias (outputs) or zeros. */
  function matrix(weight, outputs, bias) {
    return { weight, outputs, inputs: weight.length / outputs, bias: bias || new Float64Array(outputs) };
  }

  /** y = W x + b for each row of x, four outputs at a time, whose sums do not wait for each other. */
  function linear(x, rows, layer, y) {
    const { weight, bias, inputs, outputs } = layer;
    for (let r = 0; r < rows; r++) {
      const from = r * inputs, to = r * outputs;
      let o = 0;
      for (; o + 3 < outputs; o += 4) {
        let a = bias[o], b = bias[o + 1], c = bias[o + 2], d = bias[o + 3];
        let wa = o * inputs, wb = wa + inputs, wc = wb + inputs, wd = wc + inputs;
        for (let i = from; i < from + inputs; i++) {
          const v = x[i];
          a += v * weight[wa++];
          b += v * weight[wb++];
          c += v * weight[wc++];
          d += v * weight[wd++];
        }
        y[to + o] = a;
        y[to + o + 1] = b;
        y[to + o + 2] = c;
        y[to + o + 3] = d;
      }
      for (; o < outputs; o++) {
        let a = bias[o];
        for (let i = 0, w = o * inputs; i < inputs; i++) a += x[from + i] * weight[w++];
        y[to + o] = a;
      }
    }
    return y;
  }

  const sigmoid = (v) => 1 / (1 + Math.exp(-v));
  const ACTIVATIONS = {
    elu: (v) => (v > 0 ? v : Math.expm1(v)),
    relu: (v) => (v > 0 ? v : 0),
    tanh: Math.tanh,
    sigmoid,
  };

  /** In place, for each of `rows`: moments over everything in it, gain and bias per channel (last axis), activation. */
  function normAct(x, rows, norm, activation) {
    const act = ACTIVATIONS[activation], { gain, bias } = norm, channels = gain.length, length = x.length / rows;
    for (let from = 0; from < x.length; from += length) {
      let mean = 0, variance = 0;
      for (let i = from; i < from + length; i++) mean += x[i];
      mean /= length;
      for (let i = from; i < from + length; i++) variance += (x[i] - mean) * (x[i] - mean);
      const scale = 1 / Math.sqrt(variance / length + NORM_EPSILON);
      for (let i = from, c = 0; i < from + length; i++) {
        x[i] = act((x[i] - mean) * scale * gain[c] + bias[c]);
        if (++c === channels) c = 0;
      }
    }
    return x;
  }

  /** Pixels that TensorFlow's SAME rule adds before an axis. */
  function samePadding(size, kernel, stride) {
    return Math.floor(Math.max((Math.ceil(size / stride) - 1) * stride + kernel - size, 0) / 2);
  }

  /** (O,C,k,k), torch's order, to rows (O, k * k * C), as `patches` has them. */
  function channelsLast(weight, O, C, k) {
    const out = new Float64Array(weight.length);
    for (let o = 0; o < O; o++)
      for (let c = 0; c < C; c++)
        for (let u = 0; u < k * k; u++) out[(o * k * k + u) * C + c] = weight[(o * C + c) * k * k + u];
    return out;
  }

  /**
   * The windows of images (n, size, size, C) that a convolution sees, a row each, zeros outside.
   * Window (i, j) of `grid` x `grid` begins at pixel (i * stride - before, j * stride - before).
   */
  function patches(x, n, size, C, kernel, stride, before, grid, out) {
    out.fill(0);
    for (let image = 0, to = 0; image < n; image++)
      for (let i = 0; i < grid; i++)
        for (let j = 0; j < grid; j++, to += kernel * kernel * C) {
          const left = j * stride - before, first = Math.max(0, -left), last = Math.min(kernel, size - left);
          for (let u = 0; u < kernel; u++) {
            const row = i * stride - before + u;
            if (row < 0 || row >= size) continue;
            const from = ((image * size + row) * size + left) * C, at = to + u * kernel * C;
            for (let v = first * C; v < last * C; v++) out[at + v] = x[from + v];
          }
        }
    return out;
  }

  /**
   * (O,C,k,k) to (factor * factor * O, 3 * 3 * C): a SAME convolution after nearest upsampling by `factor`, as one on
   * the small image. Output pixel (factor * i + a, factor * j + b) sees at most 3 x 3 small pixels, each through the sum
   * of the taps that fall on it.
   */
  function phaseKernels(weight, O, C, k, factor, before) {
    const out = new Float64Array(factor * factor * O * 9 * C);
    const place = (a, u) => Math.floor((a + u - before) / factor) + 1;
    for (let a = 0; a < factor; a++)
      for (let b = 0; b < factor; b++)
        for (let o = 0; o < O; o++)
          for (let u = 0; u < k; u++)
            for (let v = 0; v < k; v++)
              for (let c = 0; c < C; c++)
                out[((((a * factor + b) * O + o) * 3 + place(a, u)) * 3 + place(b, v)) * C + c] +=
                  weight[((o * C + c) * k + u) * k + v];
    return out;
  }

  /** (n, h, h, factor * factor * O) to (n, h * factor, h * factor, O): each phase to its pixel. */
  function shuffle(x, n, h, factor, O, out) {
    const size = h * factor;
    for (let image = 0, from = 0; image < n; image++)
      for (let i = 0; i < h; i++)
        for (let j = 0; j < h; j++)
          for (let a = 0; a < factor; a++)
            for (let b = 0; b < factor; b++) {
              const to = ((image * size + i * factor + a) * size + j * factor + b) * O;
              for (let o = 0; o < O; o++) out[to + o] = x[from++];
            }
    return out;
  }

  /** Nearest upsampling (n, from, from, C) to (n, size, size, C), for sizes that are no multiple. */
  function nearest(x, n, from, size, C, out) {
    for (let image = 0, to = 0; image < n; image++)
      for (let i = 0; i < size; i++)
        for (let j = 0; j < size; j++) {
          const row = Math.floor((i * from) / size), column = Math.floor((j * from) / size);
          const at = ((image * from + row) * from + column) * C;
          for (let c = 0; c < C; c++) out[to++] = x[at + c];
        }
    return out;
  }

  // ------------------------------------------------------------------------------------------------------- network

  /**
   * A network from an exported run; `components` where not as trained, `effects` "sum" (as trained) or "mean".
   * The mean is scaled as rnem.analysis.ablations.mean_of_effects does it, so that both are equal at the K of the training.
   */
  function load(run, components, effects) {
    const { config, shape } = run, tensors = tensorsOf(run);
    if (!["rnem", "rnem_noatt", "nem", "rnn"].includes(config.model) || config.actions)
      throw new Error(`${run.label} is ${config.model} with ${config.actions} actions: the page has no step for it`);
    const data = (name) => tensors[name].data;
    const norm = (name) => ({ gain: data(name + ".weight"), bias: data(name + ".bias") });
    const plain = (name) => matrix(data(name + ".weight"), tensors[name + ".weight"].shape[0], data(name + ".bias"));
    const dense = (name, activation) => ({ linear: plain(name + ".linear"), norm: norm(name + ".norm"), activation });
    const network = {
      run, K: components || config.components, trained: config.components, D: config.state, size: shape.size,
      effects: effects || "sum", buffers: {},
      encoder: { convs: encoderConvs(shape, tensors, norm), dense: dense("encoder.dense", "elu") },
      decoder: {
        dense: [dense("decoder.dense.0", "relu"), dense("decoder.dense.1", "relu")],
        convs: decoderConvs(shape, tensors, norm),
      },
      update: plain("core.update"), norm: norm("core.norm"), interaction: null,
    };
    if (config.model.startsWith("rnem")) {
      const pairwise = "core.interaction", core = dense(pairwise + ".core", "relu"), D = config.state;
      const side = (start) => {
        const weight = new Float64Array(D * D);
        for (let o = 0; o < D; o++)
          weight.set(core.linear.weight.subarray(o * 2 * D + start, o * 2 * D + start + D), o * D);
        return weight;
      };
      network.interaction = {
        encode: dense(pairwise + ".encode", "relu"), core,
        focus: matrix(side(0), D, core.linear.bias), context: matrix(side(D), D),
        effect: dense(pairwise + ".context", "relu"),
        attend: config.model === "rnem"
          ? { hidden: dense(pairwise + ".attend.0", "tanh"), out: plain(pairwise + ".attend.1.linear") } : null,
      };
    }
    return network;
  }

  function encoderConvs(shape, tensors, norm) {
    let C = 1, size = shape.size;
    return shape.convs.map(([kernel, stride, width], i) => {
      const name = `encoder.convs.${i}`, grid = Math.ceil(size / stride);
      const weight = channelsLast(tensors[name + ".conv.weight"].data, width, C, kernel);
      const conv = { kernel, stride, size, grid, C, width, before: samePadding(size, kernel, stride),
        linear: matrix(weight, width, tensors[name + ".conv.bias"].data), norm: norm(name + ".norm") };
      C = width;
      size = grid;
      return conv;
    });
  }

  function decoderConvs(shape, tensors, norm) {
    let C = shape.channels, from = shape.grid;
    return shape.ups.map(([size, kernel, width], i) => {
      const name = `decoder.convs.${i}`, factor = size % from === 0 ? size / from : 0;
      const before = samePadding(size, kernel, 1), bias = tensors[name + ".conv.bias"].data;
      const weight = tensors[name + ".conv.weight"].data;
      const conv = { kernel, size, from, factor, C, width, before, norm: null };
      if (factor) {
        const repeated = new Float64Array(factor * factor * width).map((_, j) => bias[j % width]);
        const phases = phaseKernels(weight, width, C, kernel, factor, before);
        conv.linear = matrix(phases, factor * factor * width, repeated);
      } else conv.linear = matrix(channelsLast(weight, width, C, kernel), width, bias);
      if (i < shape.ups.length - 1) conv.norm = norm(name + ".norm");
      C = width;
      from = size;
      return conv;
    });
  }

  /** A buffer of the network that every step uses again; its name says for what. */
  function buffer(network, name, length) {
    const there = network.buffers[name];
    if (there && there.length === length) return there;
    return (network.buffers[name] = new Float64Array(length));
  }

  /** A dense layer, its normalisation and activation, for `rows` rows. */
  function dense(network, name, x, rows, layer) {
    const y = buffer(network, name, rows * layer.linear.outputs);
    return normAct(linear(x, rows, layer.linear, y), rows, layer.norm, layer.activation);
  }

  /** Masked differences (K, H, W) to codes (K, C). */
  function encode(network, x) {
    const K = network.K;
    network.encoder.convs.forEach((conv, i) => {
      const { kernel, stride, size, grid, C, width, before } = conv, windows = K * grid * grid;
      const seen = buffer(network, `windows${i}`, windows * kernel * kernel * C);
      patches(x, K, size, C, kernel, stride, before, grid, seen);
      x = linear(seen, windows, conv.linear, buffer(network, `encoded${i}`, windows * width));
      normAct(x, K, conv.norm, "elu");
    });
    return dense(network, "code", x, K, network.encoder.dense);
  }

  /** What the decoder reads, (K, D), to logits of psi, (K, H, W). */
  function decode(network, x) {
    const K = network.K, { dense: layers, convs } = network.decoder;
    x = dense(network, "grid", dense(network, "decoded", x, K, layers[0]), K, layers[1]);
    convs.forEach((conv, i) => {
      const { kernel, size, from, factor, C, width, before } = conv;
      const grid = factor ? from : size, side = factor ? 3 : kernel, windows = K * grid * grid;
      if (!factor) x = nearest(x, K, from, size, C, buffer(network, `large${i}`, K * size * size * C));
      const seen = buffer(network, `small${i}`, windows * side * side * C);
      patches(x, K, grid, C, side, 1, factor ? 1 : before, grid, seen);
      x = linear(seen, windows, conv.linear, buffer(network, `phases${i}`, K * size * size * width));
      if (factor) x = shuffle(x, K, from, factor, width, buffer(network, `pixels${i}`, x.length));
      if (conv.norm) normAct(x, K, conv.norm, "relu");
    });
    return x;
  }

  /**
   * Υ: e_k and the sum over all others i of att_ki * ctx_ki, (K, 2 D); for N-EM theta itself, (K, D).
   * Returns it with the attention (K * K, zeros on the diagonal; null without).
   */
  function interact(network, theta) {
    const { K, D, interaction: pairwise } = network;
    if (!pairwise) return { read: theta, width: D, attention: null };
    const e = dense(network, "e", theta, K, pairwise.encode), read = buffer(network, "read", K * 2 * D).fill(0);
    for (let k = 0; k < K; k++) read.set(e.subarray(k * D, (k + 1) * D), k * 2 * D);
    if (K === 1) return { read, width: 2 * D, attention: null };
    const focus = linear(e, K, pairwise.focus, buffer(network, "focus", K * D));
    const context = linear(e, K, pairwise.context, buffer(network, "context", K * D));
    const pairs = K * (K - 1), core = buffer(network, "core", pairs * D);
    for (let k = 0, at = 0; k < K; k++)
      for (let i = 0; i < K; i++)
        if (i !== k) for (let d = 0; d < D; d++) core[at++] = focus[k * D + d] + context[i * D + d];
    normAct(core, pairs, pairwise.core.norm, "relu");
    const effects = dense(network, "effects", core, pairs, pairwise.effect);
    const attention = pairwise.attend ? new Float64Array(K * K) : null, weight = buffer(network, "weight", pairs).fill(1);
    if (attention) {
      const hidden = dense(network, "attend", core, pairs, pairwise.attend.hidden);
      linear(hidden, pairs, pairwise.attend.out, weight);
      for (let pair = 0; pair < pairs; pair++) weight[pair] = sigmoid(weight[pair]);
    }
    const factor = network.effects === "mean" ? (network.trained - 1) / (K - 1) : 1;
    for (let k = 0, pair = 0; k < K; k++)
      for (let i = 0; i < K; i++) {
        if (i === k) continue;
        if (attention) attention[k * K + i] = weight[pair];
        for (let d = 0; d < D; d++) read[(2 * k + 1) * D + d] += effects[pair * D + d] * weight[pair] * factor;
        pair++;
      }
    return { read, width: 2 * D, attention };
  }

  /** The M-step: masked differences (K, H, W) and states to {logits, theta, attention}. */
  function forward(network, inputs, theta) {
    const { K, D } = network, code = encode(network, inputs), C = code.length / K;
    const { read, width, attention } = interact(network, theta), joined = buffer(network, "joined", K * (width + C));
    for (let k = 0; k < K; k++) {
      joined.set(read.subarray(k * width, (k + 1) * width), k * (width + C));
      joined.set(code.subarray(k * C, (k + 1) * C), k * (width + C) + width);
    }
    const fresh = linear(joined, K, network.update, buffer(network, "new", K * D));
    const carried = Float64Array.from(fresh, sigmoid);
    return { logits: decode(network, normAct(fresh, K, network.norm, "sigmoid")), theta: carried, attention };
  }

  // ------------------------------------------------------------------------------------------------------------ EM

  /** |raw| normalised over components; ones when K = 1. `raw` is standard normal, (K, H, W). */
  function initialGamma(raw, K) {
    if (K === 1) return new Float64Array(raw.length).fill(1);
    const gamma = Float64Array.from(raw, Math.abs), N = gamma.length / K;
    for (let p = 0; p < N; p++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += gamma[k * N + p];
      for (let k = 0; k < K; k++) gamma[k * N + p] /= sum;
    }
    return gamma;
  }

  /** theta = 0, psi = 0, gamma from `raw`. */
  function initialState(network, raw) {
    const { K, D } = network;
    return {
      theta: new Float64Array(K * D), psi: new Float64Array(raw.length), gamma: initialGamma(raw, K), attention: null,
    };
  }

  /** gamma_k = p_k / sum_j p_j with p_k = x psi_k + (1 - x)(1 - psi_k) + 1e-6, x the next frame. */
  function eStep(psi, x, K) {
    const gamma = new Float64Array(psi.length), N = x.length;
    for (let p = 0; p < N; p++) {
      let sum = 0;
      for (let k = 0; k < K; k++) {
        const at = k * N + p;
        gamma[at] = x[p] * psi[at] + (1 - x[p]) * (1 - psi[at]) + EPSILON;
        sum += gamma[at];
      }
      for (let k = 0; k < K; k++) gamma[k * N + p] /= sum;
    }
    return gamma;
  }

  /** input_k = gamma_k (x - psi_k): what component k has to explain. */
  function maskedDifference(gamma, x, psi) {
    const inputs = new Float64Array(psi.length), N = x.length;
    for (let i = 0; i < inputs.length; i++) inputs[i] = gamma[i] * (x[i % N] - psi[i]);
    return inputs;
  }

  /** max_k psi_k, the prediction. */
  function prediction(psi, K) {
    const N = psi.length / K, best = psi.slice(0, N);
    for (let i = N; i < psi.length; i++) if (psi[i] > best[i % N]) best[i % N] = psi[i];
    return best;
  }

  const over = (psi, K, threshold) => prediction(psi, K).map((v) => (v > threshold ? 1 : 0));

  /** sum_k gamma_k psi_k: what the model feeds itself in the authors' rollout. */
  function ownPrediction(state, K) {
    const N = state.psi.length / K, own = new Float64Array(N);
    for (let i = 0; i < state.psi.length; i++) own[i % N] += state.gamma[i] * state.psi[i];
    return own;
  }

  /** What stands for the true frames while imagining: the frame that is read, and the one that the E-step takes. */
  const FEEDBACKS = {
    grey: { frame: ownPrediction, target: (psi, K) => over(psi, K, ROLLOUT_THRESHOLD) },
    binary: {
      frame: (state, K) => over(state.psi, K, BINARY_THRESHOLD),
      target: (psi, K) => over(psi, K, BINARY_THRESHOLD),
    },
  };

  /** One EM step on frame `x`: M-step, then E-step against the next frame, or what `target` (a function) makes of psi. */
  function step(network, state, x, target) {
    const inputs = maskedDifference(state.gamma, x, state.psi);
    const { logits, theta, attention } = forward(network, inputs, state.theta);
    const psi = Float64Array.from(logits, sigmoid);
    if (typeof target === "function") target = target(psi, network.K);
    return { theta, psi, gamma: eStep(psi, target, network.K), attention };
  }

  /** A step on the model's own prediction. */
  function imagine(network, state, feedback) {
    const { frame, target } = FEEDBACKS[feedback];
    return step(network, state, frame(state, network.K), target);
  }

  // -------------------------------------------------------------------------------------------------------- metrics

  /** Binary cross entropy of a prediction (N), summed over pixels: nats. */
  function bce(best, x) {
    let sum = 0;
    for (let p = 0; p < x.length; p++) {
      const psi = Math.min(Math.max(best[p], EPSILON), 1 - EPSILON);
      sum -= x[p] * Math.log(psi) + (1 - x[p]) * Math.log(1 - psi);
    }
    return sum;
  }

  /** The component with the largest gamma at each pixel. */
  function hardest(gamma, K) {
    const N = gamma.length / K, best = new Uint8Array(N);
    for (let p = 0; p < N; p++)
      for (let k = 1; k < K; k++) if (gamma[k * N + p] > gamma[best[p] * N + p]) best[p] = k;
    return best;
  }

  /** Adjusted Rand index between balls (`groups`, 0 for what does not count) and components; NaN without a ball. */
  function ari(groups, gamma, K) {
    const component = hardest(gamma, K), G = groups.reduce((a, b) => Math.max(a, b), 1);
    const table = new Float64Array(G * K), rows = new Float64Array(G), columns = new Float64Array(K);
    let n = 0;
    for (let p = 0; p < groups.length; p++) {
      if (!groups[p]) continue;
      table[(groups[p] - 1) * K + component[p]]++;
      rows[groups[p] - 1]++;
      columns[component[p]]++;
      n++;
    }
    const squares = (a) => a.reduce((sum, v) => sum + v * v, 0);
    const together = squares(table), both = together - n;
    const split = squares(rows) - together, merged = squares(columns) - together;
    if (n === 0) return NaN;
    if (split === 0 && merged === 0) return 1;
    const neither = n * n - both - n - split - merged;
    return (2 * (both * neither - split * merged)) /
      ((both + split) * (split + neither) + (both + merged) * (merged + neither));
  }

  root.RNEM = root.RNEM || {};
  root.RNEM.model = {
    load, initialState, initialGamma, step, imagine, eStep, maskedDifference, prediction, ownPrediction, FEEDBACKS,
    EPSILON, bce, ari, hardest, forward,
  };
})(typeof window === "undefined" ? globalThis : window);
