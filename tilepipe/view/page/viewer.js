// The page of a viewer: the map, its layers, the status bar and the keys. The panel is in panel.js.
import {ImageLayer, MapLayer, shift} from '/tiles.js';
import {panel} from '/panel.js';
import {moveBar} from '/bar.js';
import {loadAhead} from '/ahead.js';

const $ = (id) => document.getElementById(id);
const json = async (address) => {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.status === 204 ? null : answer.json();
};

const about = await json('/about');
about.size = about.tile;
const {width, height} = about;
const map = L.map('map', {
  // y grows downwards, as rows do.
  crs: L.extend({}, L.CRS.Simple, {transformation: new L.Transformation(1, 0, 1, 0)}),
  zoomSnap: 0.25, zoomDelta: 1, wheelPxPerZoomLevel: 120, wheelDebounceTime: 20, fadeAnimation: false,
  zoomControl: false, attributionControl: false, keyboardPanDelta: 200, bounceAtZoomLimits: false,
  minZoom: -about.levels - 2, maxZoom: 5, maxBoundsViscosity: 0.7, preferCanvas: true,
});
const bounds = L.latLngBounds([0, 0], [height, width]);
map.setMaxBounds(bounds.pad(0.5));
const whole = () => map.fitBounds(bounds, {animate: false});
whole();

const said = {trouble: '', state: ''};
function say() {
  $('said').textContent = said.trouble || said.state;
  $('said').classList.toggle('wrong', Boolean(said.trouble));
}
const onTrouble = (error) => {
  said.trouble = error instanceof TypeError ? 'the viewer has ended; start tilepipe view again' : error.message;
  say();
};
const onRead = () => {
  if (said.trouble) {
    said.trouble = '';
    say();
  }
};

// Each layer has a pane of its own, from the image upwards.
const layers = {};
function add(name, Layer, options) {
  map.createPane(name).style.zIndex = 300 + 10 * Object.keys(layers).length;
  layers[name] = new Layer({about, source: name, pane: name, onTrouble, onRead, ...options}).addTo(map);
}
add('image', ImageLayer, {});
const controls = panel({about, map, layers, add, MapLayer, json, onTrouble});

// The status bar: position at once, what lies there when the server has told it.
const number = (value) => value === null ? 'nan' : Number.isInteger(value) ? String(value) : Number(value.toPrecision(5)).toString();
let asked = 0, wanted = null, asking = false;
async function ask() {
  if (asking || !wanted) return;
  const [y, x] = wanted;
  [wanted, asking] = [null, true];
  const turn = ++asked;
  try {
    const found = await json(`/at/${y}/${x}`);
    if (turn === asked && found) told(found);
    onRead();
  } catch (error) {
    onTrouble(error);
  }
  asking = false;
  ask();
}
function told(found) {
  const places = about.degrees ? 6 : 2;
  $('position').textContent = found.map ? `${found.map[0].toFixed(places)}, ${found.map[1].toFixed(places)}` : '';
  $('position').title = about.crs ?? '';
  const [lon, lat] = found.lonlat ?? [];
  if (found.lonlat) $('lonlat').textContent = `${Math.abs(lat).toFixed(6)}° ${lat < 0 ? 'S' : 'N'}  ${Math.abs(lon).toFixed(6)}° ${lon < 0 ? 'W' : 'E'}`;
  else $('lonlat').textContent = found.um ? `${found.um[0].toFixed(1)}, ${found.um[1].toFixed(1)} µm` : '';
  $('lonlat').title = found.lonlat ? 'latitude and longitude (WGS 84)' : found.um ? 'from the upper left corner of the slide' : '';
  $('values').textContent = found.values.slice(0, 8).map(number).join(' ');
  controls.told(found);
}
function nothing() {
  wanted = null;
  asked++;
  for (const id of ['pixel', 'position', 'lonlat', 'values', 'class']) $(id).textContent = '';
}
map.on('mousemove', ({latlng}) => {
  const [y, x] = [Math.floor(latlng.lat), Math.floor(latlng.lng)];
  if (y < 0 || x < 0 || y >= height || x >= width) return nothing();
  $('pixel').textContent = `x ${x}  y ${y}`;
  wanted = [y, x];
  ask();
});
map.on('mouseout', nothing);
map.on('zoom move resize', () => moveBar(map, about));
moveBar(map, about);

// Keys work wherever the focus is, unless something is typed.
const step = (x, y) => map.panBy([x, y], {animate: true, duration: 0.15});
const keys = {
  '+': () => map.zoomIn(), '=': () => map.zoomIn(), '-': () => map.zoomOut(), '0': whole,
  '1': () => map.setZoom(-shift), 'p': () => fold(),
  ArrowLeft: () => step(-160, 0), ArrowRight: () => step(160, 0), ArrowUp: () => step(0, -160), ArrowDown: () => step(0, 160),
  ...controls.keys,
};
map.keyboard.disable();
addEventListener('keydown', (event) => {
  const typing = event.target.matches('input[type=search], select, input[type=range], [role=separator]');
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(key in keys)) return;
  event.preventDefault();
  keys[key]();
});
const narrow = matchMedia('(max-width: 700px)');
function fold(folded = !document.body.classList.contains('folded')) {
  document.body.classList.toggle('folded', folded);
  $('fold').setAttribute('aria-expanded', String(!folded));
  // Below a panel on the right the image stays where it is; above one at the bottom its middle stays in the middle.
  map.invalidateSize({pan: narrow.matches, animate: false});
  controls.moved();
}
$('fold').onclick = () => fold();
if (narrow.matches) fold(true);

// What changes while the page is open: reading of the image, and a run that works.
const seen = {};
async function watch() {
  let state;
  try {
    state = await json('/state');
    onRead();
  } catch (error) {
    onTrouble(error);
    setTimeout(watch, 5000);
    return;
  }
  for (const [name, version] of Object.entries(state.versions)) {
    if (name in seen && seen[name] !== version) controls.refresh(name);
    seen[name] = version;
  }
  said.state = state.said;
  say();
  if (state.trouble) onTrouble(new Error(state.trouble));
  controls.state?.(state);
  if (state.working) setTimeout(watch, 1500);
}
watch();
loadAhead(map, layers);
window.viewer = {map, layers, about};  // for whoever tests the page
document.body.dataset.ready = 'yes';
