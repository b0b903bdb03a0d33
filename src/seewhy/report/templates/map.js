"use strict";
(() => {
  const root = document.currentScript.closest(".codemap");
  const find = (selector) => root.querySelector(selector);
  const data = JSON.parse(find("[data-map]").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const places = new Uint16Array(bytes(data.places).buffer), slots = new Int32Array(bytes(data.slots).buffer);
  const labels = new Int32Array(bytes(data.labels).buffer), predictions = new Int32Array(bytes(data.predictions).buffer);
  const sure = bytes(data.confidence), wrong = new Int8Array(bytes(data.wrong).buffer);
  const kinds = Object.fromEntries(Object.entries(data.kinds).map(([by, kind]) => [by, { ...kind, of: bytes(kind.of) }]));
  const count = data.count, stage = find(".stage"), canvas = find("canvas"), tip = find(".tip"), chips = find(".chips");
  const live = find("[data-live]"), pen = canvas.getContext("2d", { alpha: false });

  // Where each point lies, in [0, 1] with y downwards, and the points of each of 128 × 128 cells one after the other.
  const x = new Float32Array(count), y = new Float32Array(count), CELLS = 128;
  const starts = new Int32Array(CELLS * CELLS + 1), inCells = new Int32Array(count), cellOf = new Int32Array(count);
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  for (let i = 0; i < count; i++) {
    x[i] = places[2 * i] / 65535;
    y[i] = 1 - places[2 * i + 1] / 65535;
    cellOf[i] = Math.min(CELLS - 1, y[i] * CELLS | 0) * CELLS + Math.min(CELLS - 1, x[i] * CELLS | 0);
    starts[cellOf[i] + 1]++;
  }
  for (let c = 0; c < CELLS * CELLS; c++) starts[c + 1] += starts[c];
  const filled = starts.slice();
  for (let i = 0; i < count; i++) inCells[filled[cellOf[i]]++] = i;
  const pointOf = [];
  slots.forEach((slot, i) => { if (slot >= 0) pointOf[slot] = i; });

  // What is looked at: the map's point in the middle of the canvas, and the pixels that the whole map would take.
  let by = Object.keys(kinds)[0], chosen = new Set(), at = -1, pinned = false, thumbnails = true;
  let width = 1, height = 1, dense = 1, zoom = 1, middle = [0.5, 0.5], waiting = false, groups = [];
  // Of few images the thumbnails are larger, and the whole map leaves room for them at its edges.
  const room = (zoom) => zoom * clamp(800 / pointOf.length, 1, 16) * clamp((width / 900) ** 2, 0.2, 1);
  const thumb = (zoom) => clamp(20 * Math.sqrt(room(zoom)), 22, 56);
  const scale = () => (Math.min(width, height) - thumb(1) + 22) * zoom;
  const toX = (value) => (value - middle[0]) * scale() + width / 2, toY = (value) => (value - middle[1]) * scale() + height / 2;
  const isDark = () => {
    const chose = document.documentElement.dataset.theme;
    return chose ? chose === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const shades = () => {
    const side = isDark() ? "dark" : "light";
    if (by === "error") return data.error[side];
    const all = data[side], names = kinds[by].names;
    // what is left together comes last, in grey
    const rest = kinds[by].rest;
    return names.map((_, k) => (rest && k === names.length - 1 ? all[all.length - 1] : all[k]));
  };
  const shown = (i) => !chosen.size || chosen.has(kinds[by].of[i]);

  const group = () => {
    groups = kinds[by].names.map(() => []);
    for (let i = 0; i < count; i++) groups[kinds[by].of[i]].push(i);
  };

  const atlases = data.atlases.map((uri) => {
    const picture = new Image();
    picture.onload = () => draw();
    picture.src = uri;
    return picture;
  });
  const stamp = (target, slot, left, top, wide, high) => {
    const picture = atlases[slot / data.each | 0], place = slot % data.each, [w, h] = data.tile;
    if (!picture || !picture.complete || !picture.naturalWidth) return false;
    target.drawImage(picture, (place % data.columns) * w, (place / data.columns | 0) * h, w, h, left, top, wide, high);
    return true;
  };

  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(paint);
  }

  function paint() {
    waiting = false;
    const style = getComputedStyle(stage), colours = shades(), size = scale();
    const radius = clamp(1.1 * Math.sqrt(zoom) * Math.sqrt(6000 / Math.max(count, 300)), 1, 6);
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.fillStyle = style.backgroundColor;
    pen.fillRect(0, 0, width, height);
    const dx = width / 2 - middle[0] * size, dy = height / 2 - middle[1] * size;
    groups.forEach((points, kind) => {
      const off = chosen.size && !chosen.has(kind);
      pen.fillStyle = colours[kind];
      pen.globalAlpha = off ? 0.07 : 0.78;
      if (radius < 2.2) {
        for (const i of points) {
          const px = x[i] * size + dx, py = y[i] * size + dy;
          if (px > -9 && py > -9 && px < width + 9 && py < height + 9) pen.fillRect(px - radius, py - radius, 2 * radius, 2 * radius);
        }
      } else {
        pen.beginPath();
        for (const i of points) {
          const px = x[i] * size + dx, py = y[i] * size + dy;
          if (px < -9 || py < -9 || px > width + 9 || py > height + 9) continue;
          pen.moveTo(px + radius, py);
          pen.arc(px, py, radius, 0, 6.2832);
        }
        pen.fill();
      }
    });
    pen.globalAlpha = 1;
    if (thumbnails && data.tile[0]) paintThumbnails(colours, size, dx, dy);
    if (at >= 0) {
      const px = toX(x[at]), py = toY(y[at]);
      pen.strokeStyle = style.color;
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(px, py, radius + 5, 0, 6.2832);
      pen.stroke();
      tell(px, py);
    }
  }

  // Thumbnails in the order of the atlases, which spreads them over the map, wherever none is near yet.
  function paintThumbnails(colours, size, dx, dy) {
    const [w, h] = data.tile, side = thumb(zoom), wide = side * w / Math.max(w, h), high = side * h / Math.max(w, h);
    const gap = side * clamp(2.6 - 0.35 * Math.log2(room(zoom)), 1.25, 2.6), taken = new Set();
    for (let slot = 0; slot < pointOf.length; slot++) {
      const i = pointOf[slot];
      if (!shown(i)) continue;
      const px = x[i] * size + dx, py = y[i] * size + dy;
      if (px < -side || py < -side || px > width + side || py > height + side) continue;
      const cx = Math.floor(px / gap), cy = Math.floor(py / gap);
      let free = true;
      for (let a = -1; a < 2 && free; a++) for (let b = -1; b < 2; b++) {
        const other = taken.has((cy + a) * 4096 + cx + b) ? near.get((cy + a) * 4096 + cx + b) : null;
        if (other && Math.abs(other[0] - px) < gap && Math.abs(other[1] - py) < gap) { free = false; break; }
      }
      if (!free) continue;
      taken.add(cy * 4096 + cx);
      near.set(cy * 4096 + cx, [px, py]);
      pen.fillStyle = colours[kinds[by].of[i]];
      pen.fillRect(px - wide / 2 - 1.5, py - high / 2 - 1.5, wide + 3, high + 3);
      stamp(pen, slot, px - wide / 2, py - high / 2, wide, high);
    }
    near.clear();
  }
  const near = new Map();

  // What is under the pointer, or chosen by the keyboard

  function nearest(px, py, reach) {
    const size = scale(), mx = (px - width / 2) / size + middle[0], my = (py - height / 2) / size + middle[1], far = reach / size;
    let best = -1, least = far * far;
    const low = (value) => clamp(Math.floor((value - far) * CELLS), 0, CELLS - 1), high = (value) => clamp(Math.floor((value + far) * CELLS), 0, CELLS - 1);
    for (let row = low(my); row <= high(my); row++) for (let column = low(mx); column <= high(mx); column++) {
      const cell = row * CELLS + column;
      for (let k = starts[cell]; k < starts[cell + 1]; k++) {
        const i = inCells[k], apart = (x[i] - mx) ** 2 + (y[i] - my) ** 2;
        if (apart < least && shown(i)) { least = apart; best = i; }
      }
    }
    return best;
  }

  const said = (i) => {
    const label = labels[i] >= 0 ? data.classes[labels[i]] : "", guess = data.outputs[predictions[i]];
    const verdict = wrong[i] < 0 ? "" : wrong[i] ? " (wrong)" : " (right)";
    return { name: data.names[i], label, guess, verdict, sure: `${Math.round(sure[i] / 2.55)} %` };
  };

  function tell(px, py) {
    const about = said(at), line = (text, bold, error) => {
      const p = document.createElement("p");
      if (bold) { const b = document.createElement("b"); b.textContent = text; p.append(b); } else p.textContent = text;
      if (error) p.className = "error";
      return p;
    };
    if (tip.dataset.at !== String(at)) {
      tip.dataset.at = at;
      tip.replaceChildren();
      if (slots[at] >= 0) {
        const [w, h] = data.tile, times = Math.max(1, Math.round(96 / Math.max(w, h))), small = document.createElement("canvas");
        small.width = w * times; small.height = h * times;
        small.setAttribute("role", "img"); small.setAttribute("aria-label", about.name);
        if (stamp(small.getContext("2d"), slots[at], 0, 0, w * times, h * times)) tip.append(small); else delete tip.dataset.at;
      }
      const text = document.createElement("div");
      text.append(line(about.name, true));
      if (about.label) text.append(line(`class: ${about.label}`));
      text.append(line(`predicted: ${about.guess}, ${about.sure}${about.verdict}`, false, wrong[at] === 1));
      if (slots[at] < 0) text.append(line("no thumbnail here"));
      tip.append(text);
    }
    tip.hidden = px < 0 || py < 0 || px > width || py > height;
    const box = tip.getBoundingClientRect();
    const left = px + 16 + box.width < width ? px + 16 : px - 16 - box.width;
    const top = py + 16 + box.height < height ? py + 16 : py - 16 - box.height;
    tip.style.transform = `translate(${clamp(left, 4, Math.max(4, width - box.width - 4))}px, ${clamp(top, 4, Math.max(4, height - box.height - 4))}px)`;
  }

  function choose(point, aloud) {
    at = point;
    if (at < 0) { tip.hidden = true; delete tip.dataset.at; }
    if (aloud) {
      const about = at >= 0 ? said(at) : null;
      live.textContent = about ? `${about.name}${about.label ? `, class ${about.label}` : ""}, predicted ${about.guess}${about.verdict}` : "Nothing chosen";
    }
    draw();
  }

  // Moving about

  function zoomAt(px, py, factor) {
    const next = clamp(zoom * factor, 0.8, 400), size = scale();
    const mx = (px - width / 2) / size + middle[0], my = (py - height / 2) / size + middle[1];
    zoom = next;
    middle = [mx - (px - width / 2) / scale(), my - (py - height / 2) / scale()];
    keep();
    draw();
  }
  const keep = () => { middle = [clamp(middle[0], -0.1, 1.1), clamp(middle[1], -0.1, 1.1)]; };
  const reset = () => { zoom = 1; middle = [0.5, 0.5]; draw(); };
  const move = (dx, dy) => { middle = [middle[0] - dx / scale(), middle[1] - dy / scale()]; keep(); draw(); };

  const fingers = new Map();
  let tap = null; // where a single finger came down
  const where = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, where(event));
    tap = fingers.size === 1 ? where(event) : null;
    pinned = false;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = where(event), before = fingers.get(event.pointerId);
    if (!before) { if (!pinned) choose(nearest(...now, 14), false); return; }
    if (fingers.size === 1) move(now[0] - before[0], now[1] - before[1]);
    else {
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
      const ratio = Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1]));
      move((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      zoomAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2, ratio);
    }
    fingers.set(event.pointerId, now);
  });
  const lift = (event) => {
    if (!fingers.delete(event.pointerId) || event.type !== "pointerup" || event.pointerType === "mouse") return;
    const now = where(event);
    if (!tap || Math.hypot(now[0] - tap[0], now[1] - tap[1]) > 10) return; // it moved the map
    choose(nearest(...now, 24), true);
    pinned = at >= 0; // a finger that is lifted leaves the canvas, too
  };
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, lift);
  canvas.addEventListener("pointerleave", () => { if (!pinned && !fingers.size) choose(-1, false); });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && zoom <= 1 && event.deltaY > 0) return; // the page scrolls on
    event.preventDefault();
    zoomAt(...where(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoomAt(...where(event), 2));

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function step(dx, dy) {
    if (at < 0) { choose(nearest(width / 2, height / 2, Math.max(width, height)), true); return; }
    let best = -1, least = Infinity; // the nearest in this direction, sideways being twice as far
    for (let i = 0; i < count; i++) {
      if (i === at || !shown(i)) continue;
      const ahead = (x[i] - x[at]) * dx + (y[i] - y[at]) * dy, beside = Math.abs((x[i] - x[at]) * dy) + Math.abs((y[i] - y[at]) * dx);
      if (ahead <= 0 || beside > 2 * ahead) continue;
      const far = ahead + 2 * beside;
      if (far < least && far * scale() > 3) { least = far; best = i; }
    }
    if (best < 0) return;
    choose(best, true);
    const px = toX(x[at]), py = toY(y[at]);
    if (px < 30 || py < 30 || px > width - 30 || py > height - 30) { middle = [x[at], y[at]]; keep(); }
  }
  canvas.addEventListener("keydown", (event) => {
    const way = STEPS[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (way && event.shiftKey) move(-60 * way[0], -60 * way[1]);
    else if (way) { pinned = true; step(...way); }
    else if (event.key === "+" || event.key === "=") zoomAt(at >= 0 ? toX(x[at]) : width / 2, at >= 0 ? toY(y[at]) : height / 2, 1.4);
    else if (event.key === "-" || event.key === "_") zoomAt(at >= 0 ? toX(x[at]) : width / 2, at >= 0 ? toY(y[at]) : height / 2, 1 / 1.4);
    else if (event.key === "0" || event.key === "Home") reset();
    else if (event.key === "Escape" && at >= 0) { pinned = false; choose(-1, true); }
    else return;
    event.preventDefault();
  });

  // What it is coloured by, and what is shown

  function legend() {
    const kind = kinds[by], colours = shades();
    chips.replaceChildren(...kind.names.map((name, k) => {
      const item = document.createElement("li"), button = document.createElement("button"), dot = document.createElement("i"), number = document.createElement("small");
      button.type = "button";
      button.setAttribute("aria-pressed", chosen.has(k));
      dot.style.background = colours[k];
      number.textContent = kind.counts[k].toLocaleString("en");
      button.append(dot, name, number);
      button.addEventListener("click", () => {
        if (!chosen.delete(k)) chosen.add(k);
        if (at >= 0 && !shown(at)) choose(-1, false);
        refresh(k);
      });
      item.append(button);
      return item;
    }));
    chips.classList.toggle("some", chosen.size > 0);
  }
  function refresh(focus) {
    legend();
    if (focus !== undefined) chips.children[focus].firstChild.focus();
    draw();
  }
  root.addEventListener("change", (event) => {
    if (event.target.type === "radio") { by = event.target.value; chosen = new Set(); group(); refresh(); }
    if (event.target.dataset.do === "thumbnails") { thumbnails = event.target.checked; draw(); }
  });
  root.addEventListener("click", (event) => {
    const done = event.target.dataset.do;
    if (done === "in") zoomAt(width / 2, height / 2, 1.6);
    if (done === "out") zoomAt(width / 2, height / 2, 1 / 1.6);
    if (done === "reset") reset();
  });

  const fit = () => {
    width = stage.clientWidth; height = stage.clientHeight; dense = Math.min(2, devicePixelRatio || 1);
    canvas.width = Math.round(width * dense); canvas.height = Math.round(height * dense);
    if (width && height) draw();
  };
  new ResizeObserver(fit).observe(stage);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => refresh());
  new MutationObserver(() => refresh()).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  const radio = find(`input[value="${by}"]`);
  if (radio) radio.checked = true;
  root.dataset.points = count;
  group();
  legend();
  fit();
})();
