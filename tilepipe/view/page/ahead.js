// Tiles around the view are loaded while nothing else happens, so that the next view is there at once.
const pause = 150;  // milliseconds without a move after which loading begins
const around = 2;  // tiles on each side, which is what the layers keep

export function loadAhead(map, layers) {
  let turn = 0, running = false, timer = null, centre = null, way = L.point(0, 0);
  const shown = () => Object.values(layers).filter((layer) => layer.getPane().style.display !== 'none');

  function stop() {
    turn++;
    running = false;
    clearTimeout(timer);
    for (const layer of Object.values(layers)) layer.dropAhead();
  }
  function later() {
    clearTimeout(timer);
    timer = setTimeout(start, pause);
  }
  async function start() {
    // A layer that is still loading calls `later` when it is ready.
    if (document.hidden || shown().some((layer) => layer.isLoading())) return;
    const mine = ++turn;
    running = true;
    for (const place of shown()[0]?.placesAround(around, way) ?? []) {
      await Promise.all(shown().map((layer) => layer.loadAhead(place)));
      if (turn !== mine) return;  // `stop` was called meanwhile
    }
    running = false;
  }
  map.on('movestart zoomstart', stop);
  map.on('moveend', () => {
    const at = map.getCenter(), now = map.project(at);
    // Who has moved one way moves on in this way most often.
    if (centre) way = now.subtract(map.project(centre));
    centre = at;
    later();
  });
  for (const layer of Object.values(layers)) layer.on('loading', stop).on('load', () => running || later());
  later();
}
