// The panel: which layers and classes are shown, and how.
import {legend} from '/legend.js';

const $ = (id) => document.getElementById(id);
const hide = (kind, hidden) => document.querySelectorAll(`.${kind}`).forEach((one) => { one.hidden = hidden; });

// 0xAABBGGRR of a colour '#rrggbb', as a canvas holds it.
const ink = (colour, opacity) => {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return ((Math.round(255 * opacity) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
};

export function panel({about, map, layers, add, json, MapLayer, onTrouble}) {
  const {labels, truth} = about.maps;
  const uncertain = Object.keys(about.layers);
  hide('maps', !labels);
  hide('truth', !truth);
  hide('uncertainty', !uncertain.length);
  $('which').hidden = uncertain.length < 2;
  describe(about);

  // Colours of all values: a class that is off is clear. They are made anew when something changes.
  const size = (of) => of.wide ? 1 << 16 : 1 << 8;
  let styles = {};
  const classes = labels && legend(labels, redraw);
  function style(name) {
    if (styles[name]) return styles[name];
    const of = about.maps[name];
    const fill = new Uint32Array(size(of)), outline = new Uint32Array(size(of));
    for (let value = 0; value < fill.length; value++) {
      if (value === of.nodata || !classes.shown(value)) continue;
      fill[value] = ink(classes.colour(value), $('show-labels').checked ? $('opacity').value / 100 : 0);
      outline[value] = ink(classes.colour(value), 1);
    }
    return styles[name] = {fill, outline: $('show-outlines').checked ? outline : null};
  }
  let waiting = false;
  function redraw() {
    styles = {};
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      for (const name of ['labels', 'truth']) layers[name]?.paintAll();
    });
  }

  if (labels) add('labels', MapLayer, {wide: labels.wide, style: () => style('labels'), onValues: classes.seen});
  if (truth) add('truth', MapLayer, {wide: truth.wide, style: () => style('truth'), onValues: classes.seen});
  if (truth) add('errors', MapLayer, {style: () => verdicts});
  if (uncertain.length) {
    for (const name of uncertain) $('layer').add(new Option(name, name));
    add('uncertainty', MapLayer, {source: uncertain[0], style: () => doubt(about.layers[$('layer').value])});
    $('layer').onchange = () => {
      layers.uncertainty.options.source = $('layer').value;
      layers.uncertainty.redraw();
      meaning();
    };
    meaning();
  }
  function meaning() {
    $('show-uncertainty').parentElement.title = about.layers[$('layer').value].meaning;
  }

  // Truth lies right of the line, labels left of it.
  let share = 0.5;
  function moved() {
    const divided = truth && $('show-truth').checked;
    $('divider').hidden = !divided;
    if (!labels) return;
    const {x, y} = map.getSize(), at = Math.round(share * x);
    $('divider').style.left = `${at}px`;
    const [left, top] = [[0, 0], [at, 0]].map((point) => map.containerPointToLayerPoint(point));
    const [middle, end] = [[at, y], [x, y]].map((point) => map.containerPointToLayerPoint(point));
    const clip = (a, b) => `polygon(${a.x}px ${a.y}px, ${b.x}px ${a.y}px, ${b.x}px ${b.y}px, ${a.x}px ${b.y}px)`;
    map.getPane('labels').style.clipPath = divided ? clip(left, middle) : '';
    if (truth) map.getPane('truth').style.clipPath = clip(top, end);
  }
  map.on('move zoom resize viewreset', moved);
  $('divider').onpointerdown = (event) => {
    $('divider').setPointerCapture(event.pointerId);
    $('divider').onpointermove = ({clientX}) => {
      share = Math.min(1, Math.max(0, clientX / map.getSize().x));
      moved();
    };
  };
  $('divider').onpointerup = () => { $('divider').onpointermove = null; };
  $('divider').onkeydown = ({key}) => {
    share = Math.min(1, Math.max(0, share + ({ArrowLeft: -0.02, ArrowRight: 0.02}[key] ?? 0)));
    moved();
  };

  // Panes are hidden and shown; what has no pane is drawn anew.
  const pane = (name, shown) => { if (map.getPane(name)) map.getPane(name).style.display = shown ? '' : 'none'; };
  function shown() {
    pane('image', $('show-image').checked);
    pane('uncertainty', $('show-uncertainty').checked);
    pane('truth', $('show-truth').checked);
    pane('errors', $('show-errors').checked);
    moved();
  }
  for (const id of ['show-image', 'show-uncertainty', 'show-truth', 'show-errors']) $(id).onchange = shown;
  for (const id of ['show-labels', 'show-outlines']) $(id).onchange = redraw;
  $('opacity').oninput = redraw;
  shown();

  // Space hides all that lies over the image, and shows it again.
  let hidden = false;
  function peek() {
    hidden = !hidden;
    for (const name of ['labels', 'truth', 'errors', 'uncertainty']) {
      if (map.getPane(name)) map.getPane(name).style.visibility = hidden ? 'hidden' : '';
    }
  }

  const {next, previous} = places({map, json, onTrouble});
  $('next').onclick = next;
  $('previous').onclick = previous;
  const click = (id) => () => { if (!$(id).closest('[hidden]')) $(id).click(); };
  return {
    moved,
    keys: {
      ' ': peek, i: click('show-image'), o: click('show-outlines'), u: click('show-uncertainty'),
      t: click('show-truth'), e: click('show-errors'), l: click('show-labels'), n: () => uncertain.length && next(),
      b: () => uncertain.length && previous(),
    },
    refresh(name) {
      if (name in layers) layers[name].refreshAll();
      else if (name === $('layer').value) layers.uncertainty?.refreshAll();
      if (['labels', 'truth'].includes(name)) layers.errors?.refreshAll();
    },
    told(found) {
      const words = [];
      for (const name of ['labels', 'truth']) {
        if (name in about.maps) words.push([name, found[name]]);
      }
      $('class').replaceChildren(...words.map(([name, value]) => classes.word(name, value)));
      if (truth && found.labels !== null && found.truth !== null) {
        const verdict = document.createElement('span');
        verdict.className = 'word';
        verdict.textContent = found.labels === found.truth ? 'right' : 'wrong';
        $('class').append(verdict);
      }
      const certain = uncertain.filter((name) => found[name] !== null).map((name) => `${name} ${found[name].toFixed(2)}`);
      if (certain.length) $('class').append(certain.join('  '));
    },
  };
}

// Wrong pixels are red and right ones green, which keep apart by how dense they are as well.
const verdicts = {fill: new Uint32Array(256), outline: null};
[verdicts.fill[0], verdicts.fill[1]] = [ink('#1fbf5a', 0.3), ink('#ff1e1e', 0.85)];

// Doubtful pixels are magenta, which few palettes have, and certain ones clear.
function doubt({nodata, step}) {
  const fill = new Uint32Array(256), large = document.getElementById('layer').value === 'margin';
  for (let value = 0; value < 256; value++) {
    const doubtful = Math.min(1, large ? 1 - value * step : value * step);
    if (value !== nodata) fill[value] = ink('#ff2fd0', 0.85 * doubtful ** 1.5);
  }
  return {fill, outline: null};
}

// Steps through the least certain places, and draws a frame around the one that is shown.
function places({map, json, onTrouble}) {
  let at = -1, frame = null;
  async function go(by) {
    try {
      const {places, layer, side} = await json('/places');
      if (!places.length) {
        $('place').textContent = 'none yet';
        return;
      }
      at = (Math.max(at, by > 0 ? -1 : 0) + by + places.length) % places.length;
      const [y, x, value] = places[at];
      $('place').textContent = `${at + 1} of ${places.length} · ${layer} ${value.toFixed(2)}`;
      const zoom = Math.max(map.getZoom(), Math.min(0, map.getMaxZoom()));
      map.setView([y, x], zoom, {animate: false});
      frame?.remove();
      const corners = [[y - side / 2, x - side / 2], [y + side / 2, x + side / 2]];
      frame = L.rectangle(corners, {color: '#fff', weight: 1.5, fill: false, interactive: false}).addTo(map);
    } catch (error) {
      onTrouble(error);
    }
  }
  return {next: () => go(1), previous: () => go(-1)};
}

function describe(about) {
  document.title = `${about.name} · tilepipe`;
  $('name').textContent = about.name;
  const size = about.resolution;
  const grain = size ? ` · ${Number(size.x.toPrecision(3))} ${size.unit === 'um' ? 'µm' : size.unit}/px` : '';
  $('facts').textContent = `${about.width.toLocaleString('en')} × ${about.height.toLocaleString('en')} px${grain}`
    + ` · ${about.bands} ${about.bands === 1 ? 'band' : 'bands'} ${about.type}${about.crs ? ` · ${about.crs}` : ''}`;
}
