// A clip that plays: a stage, a strip of its frames, and the likeness of its windows.

import { film, structure } from "./api.js";

export const HUES = ["#ff5a36", "#2f8cff", "#0fb981", "#a874ff", "#e0a100", "#ff5fa8"];
const NARROWEST = 60; // pixels of a frame in the strip
const OPACITY = 0.72; // of the hottest patch
const DIM = 0.3; // of the frame below heat
const SLOWEST_S = 8;
const MOST_PIXELS = 2; // device pixels for a pixel of the page

const shown = new Set(); // films on the screen
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;

export const isPlaying = () => playing;
export function setPlaying(value) {
  playing = value;
}

const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) {
        shown.add(target.film);
        target.film.load();
      } else shown.delete(target.film);
    }
  },
  { rootMargin: "200px" },
);
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) target.film.resize();
});

function tick(now) {
  for (const one of shown) one.advance(now);
  requestAnimationFrame(tick);
}
requestAnimationFrame(tick);

export class Film {
  // `parts` are canvases: stage, and optionally strip and windows; and a range input, scrub.
  constructor(clip, side, parts) {
    Object.assign(this, { clip, side, parts });
    this.frame = 0;
    this.held = false;
    this.nouns = []; // [{noun, hue, on}]
    this.structure = null;
    this.image = null;
    const ratio = clip.height / clip.width;
    this.size(parts.stage, 360, 360 * ratio);
    for (const canvas of [parts.stage, parts.strip, parts.windows].filter(Boolean)) {
      canvas.film = this;
      sizes.observe(canvas);
    }
    watcher.observe(parts.stage);
    parts.scrub?.addEventListener("input", () => {
      this.held = true;
      this.show(Number(parts.scrub.value));
    });
    parts.scrub?.addEventListener("blur", () => (this.held = false));
  }

  close() {
    shown.delete(this);
    watcher.unobserve(this.parts.stage);
    for (const canvas of Object.values(this.parts)) if (canvas?.film) sizes.unobserve(canvas);
  }

  size(canvas, width, height) {
    const scale = Math.min(devicePixelRatio || 1, MOST_PIXELS);
    const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== wide || canvas.height !== high) {
      canvas.width = wide;
      canvas.height = high;
    }
  }

  resize() {
    const { stage, strip, windows } = this.parts;
    const ratio = this.clip.height / this.clip.width;
    if (stage.clientWidth) this.size(stage, stage.clientWidth, stage.clientWidth * ratio);
    if (strip?.clientWidth) {
      this.picked = picked(this.clip.frames, strip.clientWidth);
      const wide = strip.clientWidth / this.picked.length;
      strip.style.height = `${wide * ratio}px`;
      this.size(strip, strip.clientWidth, wide * ratio);
    }
    if (windows?.clientWidth) this.size(windows, windows.clientWidth, windows.clientHeight);
    this.draw();
  }

  async load() {
    if (this.loading) return;
    this.loading = true;
    try {
      this.image = await film(this.clip.number);
      this.draw();
      await this.locate();
    } catch {
      this.parts.stage.parentElement.classList.add("damaged");
    }
  }

  setNouns(nouns) {
    const changed = nouns.map(({ noun }) => noun).join("\n");
    this.nouns = nouns;
    if (changed !== this.wanted) {
      this.wanted = changed;
      if (this.image) this.locate().catch(() => {});
    }
    this.draw();
  }

  async locate() {
    const asked = this.wanted;
    const names = this.nouns.map(({ noun }) => noun);
    const found = await structure(this.clip.number, this.side, names);
    if (asked !== this.wanted) return;
    this.structure = found;
    this.maps = new Map(found.nouns.map((one) => [one.noun, one]));
    this.tinted = new Map();
    this.parts.stage.dispatchEvent(new CustomEvent("located", { bubbles: true }));
    this.draw();
  }

  advance(now) {
    if (!playing || this.held || !this.image) return;
    const lasts = Math.min(Math.max((this.clip.end_us - this.clip.start_us) / 1e6, 1), SLOWEST_S);
    const frame = Math.floor(((now / 1000 / lasts) % 1) * this.clip.frames);
    if (frame !== this.frame) this.show(frame);
  }

  show(frame) {
    const before = this.window;
    this.frame = frame;
    if (this.parts.scrub && !this.held) this.parts.scrub.value = frame;
    this.drawStage();
    this.drawMarker();
    if (this.window !== before) this.drawWindows();
  }

  get window() {
    return this.structure ? this.structure.window_of[this.frame] : 0;
  }

  draw() {
    if (!this.image) return;
    this.drawStage();
    this.drawStrip();
    this.drawWindows();
  }

  drawStage() {
    if (!this.image) return;
    const { stage } = this.parts;
    this.drawFrame(stage.getContext("2d"), this.frame, 0, 0, stage.width, stage.height);
  }

  drawStrip() {
    const { strip } = this.parts;
    if (!strip || !this.picked) return;
    this.still = document.createElement("canvas");
    this.still.width = strip.width;
    this.still.height = strip.height;
    const context = this.still.getContext("2d");
    const wide = strip.width / this.picked.length;
    this.picked.forEach((frame, place) => {
      this.drawFrame(context, frame, place * wide + 1, 0, wide - 2, strip.height);
    });
    this.drawMarker();
  }

  drawMarker() {
    const { strip } = this.parts;
    if (!strip || !this.still?.width) return;
    const context = strip.getContext("2d");
    context.clearRect(0, 0, strip.width, strip.height);
    context.drawImage(this.still, 0, 0);
    const at = ((this.frame + 0.5) / this.clip.frames) * strip.width;
    context.fillStyle = "rgb(0 0 0 / .5)";
    context.fillRect(at - 3, 0, 6, strip.height);
    context.fillStyle = "#fff";
    context.fillRect(at - 1.5, 0, 3, strip.height);
  }

  drawFrame(context, frame, left, top, width, height) {
    const { width: wide, height: high } = this.clip;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.image, frame * wide, 0, wide, high, left, top, width, height);
    // A noun without a patch would only dim the frame.
    const lit = this.nouns.filter(({ noun, on }) => on && this.maps?.get(noun)?.share > 0);
    if (!lit.length) return;
    const [x, y, w, h] = this.structure.crop;
    context.fillStyle = `rgb(12 13 16 / ${DIM})`;
    context.fillRect(left, top, width, height);
    for (const { noun, hue } of lit) {
      const map = this.tint(noun, hue, this.structure.window_of[frame]);
      context.save();
      context.beginPath();
      context.rect(left + x * width, top + y * height, w * width, h * height);
      context.clip();
      context.drawImage(map, left + x * width, top + y * height, w * width, h * height);
      context.restore();
    }
  }

  // A small canvas with one pixel a patch; scaling it interpolates between patches.
  tint(noun, hue, window) {
    const key = `${hue} ${window} ${noun}`;
    if (this.tinted.has(key)) return this.tinted.get(key);
    const { heat } = this.maps.get(noun);
    const hottest = Math.max(1, ...heat.flat(2));
    const rows = heat[window];
    const canvas = document.createElement("canvas");
    canvas.width = rows[0].length;
    canvas.height = rows.length;
    const context = canvas.getContext("2d");
    rows.forEach((row, y) =>
      row.forEach((value, x) => {
        context.globalAlpha = (OPACITY * value) / hottest;
        context.fillStyle = hue;
        context.fillRect(x, y, 1, 1);
      }),
    );
    this.tinted.set(key, canvas);
    return canvas;
  }

  drawWindows() {
    const { windows } = this.parts;
    if (!windows || !this.structure) return;
    const likeness = this.structure.similarity[this.window];
    const context = windows.getContext("2d");
    const wide = windows.width / likeness.length;
    const style = getComputedStyle(windows);
    context.clearRect(0, 0, windows.width, windows.height);
    likeness.forEach((value, place) => {
      context.globalAlpha = 1;
      context.fillStyle = style.getPropertyValue("--wash");
      context.fillRect(place * wide + 1, 0, wide - 2, windows.height);
      context.globalAlpha = share(value);
      context.fillStyle = style.getPropertyValue("--ours");
      context.fillRect(place * wide + 1, 0, wide - 2, windows.height);
    });
    context.globalAlpha = 1;
  }
}

// Cosines of 0 and less are empty; differences close to 1 are the ones that matter.
export function share(cosine) {
  return Math.max(0, Math.min(1, cosine)) ** 2;
}

function picked(frames, width) {
  const count = Math.max(1, Math.min(frames, Math.floor(width / NARROWEST)));
  return Array.from({ length: count }, (_, i) => Math.floor(((2 * i + 1) * frames) / (2 * count)));
}
