"use strict";
// The picture: a line between image and labels, colour, zoom, a scale bar. Without this script it stands still.
(() => {
  const at = (id) => document.getElementById(id);
  const stage = at("stage"), sheet = at("sheet"), base = sheet && sheet.querySelector(".base");
  if (!base) return;
  const labels = at("labels"), divider = at("divider"), opacity = at("opacity"), scale = at("scale");
  const MOST = 16, BAR = 110;
  let zoom = 1, x = 0, y = 0, line = 0.5;

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  function draw() {
    const width = stage.clientWidth, height = stage.clientHeight;
    if (!width) return;
    x = clamp(x, width - width * zoom, 0);
    y = clamp(y, height - height * zoom, 0);
    sheet.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    stage.classList.toggle("moved", zoom > 1);
    sheet.classList.toggle("near", width * zoom > 2.5 * base.naturalWidth);
    if (divider) {
      divider.style.left = `${line * 100}%`;
      divider.setAttribute("aria-valuenow", Math.round(line * 100));
      labels.style.clipPath = `inset(0 0 0 ${clamp((line * width - x) / zoom, 0, width)}px)`;
    }
    drawScale(width * zoom / Number(base.getAttribute("width")));
  }

  // The bar is 1, 2 or 5 times a power of ten long, and at most BAR pixels.
  function drawScale(shown) {
    const each = Number(sheet.dataset.pixel) / shown, longest = BAR * each;
    const power = 10 ** Math.floor(Math.log10(longest));
    const length = [5, 2, 1].map((times) => times * power).find((size) => size <= longest * 1.0001) || power;
    const units = {m: [["km", 1e3], ["m", 1], ["cm", 1e-2]], um: [["mm", 1e3], ["\u00b5m", 1], ["nm", 1e-3]], px: [["px", 1]]};
    const known = units[sheet.dataset.unit];
    const [name, size] = known.find((unit) => length >= unit[1] * 0.9999) || known[known.length - 1];
    const wide = length / each;
    scale.setAttribute("width", Math.max(wide + 2, 50));
    scale.querySelector("text").textContent = `${Number((length / size).toPrecision(3))} ${name}`;
    scale.querySelector("path").setAttribute("d", `M1 17v6h${wide}v-6`);
  }

  function zoomTo(wanted, px, py) {
    const next = clamp(wanted, 1, MOST);
    x = px - (px - x) * next / zoom;
    y = py - (py - y) * next / zoom;
    zoom = next;
    draw();
  }

  const inside = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const middle = () => [stage.clientWidth / 2, stage.clientHeight / 2];

  at("in").addEventListener("click", () => zoomTo(zoom * 1.6, ...middle()));
  at("out").addEventListener("click", () => zoomTo(zoom / 1.6, ...middle()));
  at("fit").addEventListener("click", () => zoomTo(1, 0, 0));
  stage.addEventListener("dblclick", (event) => zoomTo(zoom * 2, ...inside(event)));
  stage.addEventListener("wheel", (event) => {
    if (!(event.ctrlKey || event.metaKey)) return; // the wheel alone scrolls the page
    event.preventDefault();
    zoomTo(zoom * Math.exp(-event.deltaY / 300), ...inside(event));
  }, {passive: false});
  stage.addEventListener("keydown", (event) => {
    const step = {ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60]}[event.key];
    if (event.target === divider) return;
    if (event.key === "+" || event.key === "=") zoomTo(zoom * 1.6, ...middle());
    else if (event.key === "-") zoomTo(zoom / 1.6, ...middle());
    else if (event.key === "0") zoomTo(1, 0, 0);
    else if (step && zoom > 1) { x += step[0]; y += step[1]; draw(); }
    else return;
    event.preventDefault();
  });

  // One finger or the mouse moves the picture, two fingers zoom it.
  const held = new Map();
  stage.addEventListener("pointerdown", (event) => {
    if (divider && divider.contains(event.target)) return;
    held.set(event.pointerId, inside(event));
    if (zoom > 1 || held.size > 1) stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) return;
    const before = [...held.values()], now = inside(event), old = held.get(event.pointerId);
    held.set(event.pointerId, now);
    if (held.size === 1) {
      x += now[0] - old[0]; y += now[1] - old[1]; draw();
    } else if (held.size === 2) {
      const after = [...held.values()], far = (p) => Math.hypot(p[0][0] - p[1][0], p[0][1] - p[1][1]);
      zoomTo(zoom * far(after) / Math.max(far(before), 1), (after[0][0] + after[1][0]) / 2, (after[0][1] + after[1][1]) / 2);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => held.delete(event.pointerId));

  if (divider) {
    let dragged = false;
    divider.addEventListener("pointerdown", (event) => { dragged = true; divider.setPointerCapture(event.pointerId); });
    divider.addEventListener("pointermove", (event) => {
      if (dragged) { line = clamp(inside(event)[0] / stage.clientWidth, 0, 1); draw(); }
    });
    for (const end of ["pointerup", "pointercancel"]) divider.addEventListener(end, () => { dragged = false; });
    divider.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1}[event.key];
      if (step) { line = clamp(line + step, 0, 1); draw(); event.preventDefault(); }
    });
    opacity.addEventListener("input", () => { at("fill").style.opacity = opacity.value / 100; });
  }

  at("tools").hidden = false;
  new ResizeObserver(draw).observe(stage);
})();
