// The scale bar: 1, 2 or 5 times a power of ten, in the unit that reads best.
const units = {m: [['km', 1000], ['m', 1], ['cm', 0.01]], um: [['mm', 1000], ['µm', 1], ['nm', 0.001]], px: [['px', 1]]};
const longest = 140;

export function moveBar(map, about) {
  const bar = document.getElementById('bar');
  const unit = about.resolution?.unit ?? 'px';
  const each = (about.resolution?.x ?? 1) / 2 ** map.getZoom();
  const power = 10 ** Math.floor(Math.log10(longest * each));
  const length = Math.max(...[1, 2, 5].map((times) => times * power).filter((found) => found <= longest * each));
  const [name, size] = units[unit].find(([, size]) => length >= size) ?? units[unit].at(-1);
  bar.firstChild.style.width = `${Math.round(length / each)}px`;
  bar.lastChild.textContent = `${Number((length / size).toPrecision(3))} ${name}`;
  bar.hidden = false;
}
