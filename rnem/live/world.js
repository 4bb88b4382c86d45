// Hard discs in a box: rnem.videos.balls, operation by operation, for one box that a reader throws balls into.
//
// Units: the box has side 10, a point is (y, x), a step is one frame of the authors' videos. A ball is
// {y, x, vy, vx, radius, mass}; the laptop's frames are every second step.
(function (root) {
  "use strict";

  const BOX = 10;
  const CURTAIN_SIDE = 28 * (BOX / 64);
  const LIGHT = { radius: 0.8, mass: 1 }, HEAVY = { radius: 1.0, mass: 6 };
  const CURTAINED = { radius: 1.2, mass: 1 }; // of the videos with a curtain
  const MOST = 8; // balls
  const FASTEST = 0.4; // box units a step; the training videos hold hardly anything faster

  const length = (y, x) => Math.sqrt(y * y + x * x);

  /** Move every ball that crosses a wall back onto it, and negate that component of its velocity. */
  function walls(balls) {
    for (const ball of balls)
      for (const [place, velocity] of [["y", "vy"], ["x", "vx"]]) {
        const inside = Math.min(Math.max(ball[place], ball.radius), BOX - ball.radius);
        if (inside === ball[place]) continue;
        ball[place] = inside;
        ball[velocity] = -ball[velocity];
      }
  }

  /** Separate two balls by half the overlap each, then exchange momentum along their line of centres. */
  function collide(a, b, distance) {
    const far = Math.max(distance, 1e-12), ny = (b.y - a.y) / far, nx = (b.x - a.x) / far;
    const push = (a.radius + b.radius - distance) / 2;
    const closing = (a.vy - b.vy) * ny + (a.vx - b.vx) * nx;
    const impulse = (2 * closing) / (a.mass + b.mass), iy = impulse * ny, ix = impulse * nx;
    a.y -= push * ny;
    a.x -= push * nx;
    b.y += push * ny;
    b.x += push * nx;
    a.vy -= iy * b.mass;
    a.vx -= ix * b.mass;
    b.vy += iy * a.mass;
    b.vx += ix * a.mass;
  }

  /** One step: x += v, then the walls, then every pair i < j in turn. Changes the balls; marks those that touch. */
  function step(balls) {
    for (const ball of balls) {
      ball.y += ball.vy;
      ball.x += ball.vx;
    }
    walls(balls);
    for (let i = 0; i < balls.length; i++)
      for (let j = i + 1; j < balls.length; j++) {
        const a = balls[i], b = balls[j], distance = length(b.y - a.y, b.x - a.x);
        if (!(distance < a.radius + b.radius)) continue;
        collide(a, b, distance);
        a.touched = b.touched = true;
      }
  }

  /** `stride` steps; the balls that hit another one on the way are `touched`. */
  function advance(balls, stride) {
    for (const ball of balls) ball.touched = false;
    for (let i = 0; i < stride; i++) step(balls);
  }

  /**
   * A frame of `size` x `size` pixels: features (0 or 1), groups (the ball's number from 1, 0 for background and where
   * two overlap), collisions (pixels of balls that touched). Behind the curtain {y, x} all are 0.
   */
  function render(balls, size, curtain) {
    const features = new Float64Array(size * size), groups = new Uint8Array(size * size);
    const collisions = new Uint8Array(size * size), twice = new Uint8Array(size * size);
    const centre = (i) => (i + 0.5) * (BOX / size);
    balls.forEach((ball, number) => {
      const square = ball.radius * ball.radius;
      for (let i = 0; i < size; i++) {
        const room = square - (centre(i) - ball.y) * (centre(i) - ball.y);
        for (let j = 0; j < size; j++) {
          if (!((centre(j) - ball.x) * (centre(j) - ball.x) < room)) continue;
          const p = i * size + j;
          if (features[p]) twice[p] = 1;
          features[p] = 1;
          groups[p] = number + 1;
          if (ball.touched) collisions[p] = 1;
        }
      }
    });
    const behind = (p) => covers(curtain, centre(Math.floor(p / size)), centre(p % size));
    for (let p = 0; p < features.length; p++) {
      if (twice[p]) groups[p] = 0;
      if (curtain && behind(p)) features[p] = groups[p] = collisions[p] = 0;
    }
    return { features, groups, collisions };
  }

  /** Whether a point is behind the curtain. */
  function covers(curtain, y, x) {
    const dy = y - curtain.y, dx = x - curtain.x;
    return dy >= 0 && dy < CURTAIN_SIDE && dx >= 0 && dx < CURTAIN_SIDE;
  }

  /** The velocity, or the same direction at the fastest that is allowed. */
  function clipped(vy, vx) {
    const speed = length(vy, vx), factor = speed > FASTEST ? FASTEST / speed : 1;
    return { vy: vy * factor, vx: vx * factor, clipped: factor < 1 };
  }

  /** Numbers in [0, 1) from a seed, the same in every browser (mulberry32). */
  function random(seed) {
    let a = seed >>> 0;
    return function () {
      a = (a + 0x6d2b79f5) >>> 0;
      let t = Math.imul(a ^ (a >>> 15), a | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  /** `count` standard normal numbers (Box and Muller). */
  function normal(next, count) {
    const out = new Float64Array(count);
    for (let i = 0; i < count; i++)
      out[i] = Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
    return out;
  }

  /** A start as those of the training: no overlap, `speed` the norm of all velocities together. */
  function scatter(count, next, kinds, speed, margin) {
    for (;;) {
      const balls = [];
      for (let tries = 0; balls.length < count && tries < 4000; tries++) {
        const kind = kinds[Math.floor(next() * kinds.length)], spot = () => margin + (BOX - 2 * margin) * next();
        const ball = { y: spot(), x: spot(), vy: 0, vx: 0, touched: false, ...kind };
        if (balls.every((b) => length(b.y - ball.y, b.x - ball.x) >= b.radius + ball.radius)) balls.push(ball);
      }
      if (balls.length < count) continue;
      const directions = normal(next, 2 * count), norm = Math.sqrt(directions.reduce((s, v) => s + v * v, 0));
      balls.forEach((ball, i) => {
        ball.vy = (directions[2 * i] * speed) / norm;
        ball.vx = (directions[2 * i + 1] * speed) / norm;
      });
      return balls;
    }
  }

  root.RNEM = root.RNEM || {};
  root.RNEM.world = {
    BOX, CURTAIN_SIDE, LIGHT, HEAVY, CURTAINED, MOST, FASTEST, step, advance, render, covers, clipped, random, normal,
    scatter,
  };
})(typeof window === "undefined" ? globalThis : window);
