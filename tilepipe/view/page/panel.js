// The panel: which layers and classes are shown, and how.
const $ = (id) => document.getElementById(id);

export function panel({about, map, layers}) {
  for (const kind of ['maps', 'uncertainty', 'truth']) {
    document.querySelectorAll(`.${kind}`).forEach((element) => { element.hidden = true; });
  }
  document.title = `${about.name} · tilepipe`;
  $('name').textContent = about.name;
  const size = about.resolution;
  const grain = size ? ` · ${Number(size.x.toPrecision(3))} ${size.unit === 'um' ? 'µm' : size.unit}/px` : '';
  $('facts').textContent = `${about.width.toLocaleString('en')} × ${about.height.toLocaleString('en')} px${grain}`
    + ` · ${about.bands} ${about.bands === 1 ? 'band' : 'bands'} ${about.type}${about.crs ? ` · ${about.crs}` : ''}`;
  const show = $('show-image');
  show.onchange = () => { map.getPane('image').style.display = show.checked ? '' : 'none'; };
  return {
    keys: {i: () => show.click()},
    told() {}, moved() {},
    refresh(name) { layers[name]?.refreshAll(); },
  };
}
