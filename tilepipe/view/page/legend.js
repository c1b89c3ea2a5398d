// The classes: their names and colours, and which are shown. A map with many classes, or of another
// program, lists those that have been seen.
const $ = (id) => document.getElementById(id);
const few = 24, most = 200;
const others = ['#d9d9d9', '#d55e00', '#009e73', '#0072b2', '#f0e442', '#cc79a7', '#56b4e9', '#e69f00', '#9467bd'];
const clear = ['background', 'other'];

export function legend({classes, colours, nodata}, onChange) {
  const known = new Set(classes.length <= few ? classes.keys() : []);
  const off = new Set(clear.includes(classes[0]?.toLowerCase()) ? [0] : []);
  if (!classes.length) off.add(0);
  let only = null;  // a set of the only classes that are shown, if most are not
  const colour = (value) => colours[value] ?? others[value % others.length];
  const name = (value) => classes[value] ?? `value ${value}`;
  const shown = (value) => only ? only.has(value) : !off.has(value);

  function row(value) {
    const [item, label, box, swatch, text, alone] = ['li', 'label', 'input', 'span', 'span', 'button']
      .map((tag) => document.createElement(tag));
    Object.assign(box, {type: 'checkbox', checked: shown(value)});
    box.onchange = () => set(value, box.checked);
    swatch.className = 'swatch';
    swatch.style.background = colour(value);
    text.className = 'name';
    text.textContent = text.title = name(value);
    Object.assign(alone, {className: 'only', textContent: 'only', title: `Show ${name(value)} alone`});
    alone.onclick = () => { only = new Set([value]); changed(); };
    label.append(box, swatch, text);
    item.append(label, alone);
    return item;
  }
  function set(value, on) {
    const change = (group, add) => add ? group.add(value) : group.delete(value);
    if (only) change(only, on);
    else change(off, !on);
    changed();
  }
  function list() {
    const wanted = $('filter').value.trim().toLowerCase();
    const all = wanted ? [...classes.keys()].filter((value) => classes[value].toLowerCase().includes(wanted))
      : [...known].sort((a, b) => a - b);
    $('legend').replaceChildren(...all.slice(0, most).map(row));
    $('more').hidden = all.length <= most && (wanted || classes.length <= few);
    $('more').textContent = all.length > most ? `and ${(all.length - most).toLocaleString('en')} more; type a part of a name`
      : `of ${classes.length.toLocaleString('en')} classes, those seen so far`;
    $('filter').hidden = classes.length <= few;
  }
  function changed() {
    list();
    onChange();
  }
  $('all').onclick = () => { only = null; off.clear(); changed(); };
  $('none').onclick = () => { only = new Set(); changed(); };
  $('filter').oninput = list;
  list();

  return {
    colour, shown,
    // Take over the values of a tile.
    seen(values) {
      if (known.size === classes.length && classes.length) return;
      const before = known.size;
      let last = nodata;
      for (const value of values) {
        if (value !== last && value !== nodata && known.size < 5000) known.add(value);
        last = value;
      }
      if (known.size !== before) list();
    },
    word(map, value) {
      const [word, swatch] = ['span', 'span'].map((tag) => document.createElement(tag));
      swatch.className = 'swatch';
      if (value !== null) swatch.style.background = colour(value);
      word.append(swatch, `${map === 'truth' ? 'truth: ' : ''}${value === null ? 'no label' : name(value)}`);
      word.className = 'word';
      return word;
    },
  };
}
