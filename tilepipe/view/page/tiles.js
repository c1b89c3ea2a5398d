// Layers of tiles that are fetched with the page's cookie and drawn on canvases.
// At zoom 0 a pixel of the image is a pixel of the screen; level k of the server is zoom -k.

export const shift = Math.max(0, Math.round(Math.log2(window.devicePixelRatio || 1)));

async function fetched(address, signal) {
  const answer = await fetch(address, {signal});
  if (answer.status === 204) return null;
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

// A layer of canvases; `load` fetches what a tile shows and `paint` draws it.
const Tiles = L.GridLayer.extend({
  initialize(options) {
    const {size, levels, width, height} = options.about;
    L.GridLayer.prototype.initialize.call(this, {
      ...options,
      tileSize: size / 2 ** shift,
      minZoom: -Infinity, maxZoom: Infinity, minNativeZoom: -levels - shift, maxNativeZoom: -shift,
      bounds: L.latLngBounds([0, 0], [height, width]),
      keepBuffer: 2, updateWhenZooming: false, updateInterval: 60,
    });
    this.on('tileunload', ({tile}) => {
      tile.gone = true;
      tile.abort?.abort();
    });
  },
  createTile(coords, done) {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = this.options.about.size;
    canvas.place = `${-coords.z - shift}/${coords.y}/${coords.x}`;
    canvas.classList.toggle('near', coords.z === -shift);
    // Another canvas may have its place by then, and Leaflet would take that one for loaded.
    canvas.ready = this.refresh(canvas).finally(() => canvas.gone || done(null, canvas));
    return canvas;
  },
  async refresh(canvas) {
    canvas.abort?.abort();
    canvas.abort = new AbortController();
    try {
      const content = await this.load(`/tiles/${this.options.source}/${canvas.place}`, canvas.abort.signal);
      canvas.content = content;
      await this.paint(canvas);
      this.options.onRead?.();
    } catch (error) {
      if (error.name !== 'AbortError') this.options.onTrouble(error);
    }
  },
  // The places of tiles around the view that are not there, those nearest to the view's next centre first.
  placesAround(count, way) {
    const range = this._pxBoundsToTileRange(this._getTiledPixelBounds(this._map.getCenter()));
    const next = range.getCenter().add(way.unscaleBy(this.getTileSize()));
    const places = [];
    for (let y = range.min.y - count; y <= range.max.y + count; y++) {
      for (let x = range.min.x - count; x <= range.max.x + count; x++) {
        places.push(Object.assign(L.point(x, y), {z: this._tileZoom}));
      }
    }
    return places.sort((one, other) => one.distanceTo(next) - other.distanceTo(next));
  },
  loadAhead(place) {
    if (place.z !== this._tileZoom || this._tiles[this._tileCoordsToKey(place)] || !this._isValidTile(place)) return null;
    this._addTile(place, this._level.el);
    const canvas = this._tiles[this._tileCoordsToKey(place)].el;
    canvas.ahead = true;
    return canvas.ready;
  },
  // Tiles that nobody has asked to see yet do not keep those waiting that the new view needs.
  dropAhead() {
    for (const [key, tile] of Object.entries(this._tiles ?? {})) {
      if (tile.el.ahead && !tile.loaded) this._removeTile(key);
    }
  },
  canvases() {
    return Object.values(this._tiles ?? {}).map((tile) => tile.el);
  },
  refreshAll() {
    return Promise.all(this.canvases().map((canvas) => this.refresh(canvas)));
  },
  paintAll() {
    this.canvases().forEach((canvas) => this.paint(canvas));
  },
});

export const ImageLayer = Tiles.extend({
  async load(address, signal) {
    const answer = await fetched(address, signal);
    return answer && new Uint8ClampedArray(await answer.arrayBuffer());
  },
  paint(canvas) {
    const size = canvas.width;
    // An image is opaque or clear, so its colours need not be multiplied.
    const shown = show(canvas, canvas.content && new ImageData(canvas.content, size, size), {premultiplyAlpha: 'none'});
    canvas.content = null;  // the canvas keeps the pixels
    return shown;
  },
});

// A map of values: labels, truth or uncertainty. A tile has one more value on each side, so that
// outlines do not end at tiles. `options.style()` returns {fill, outline}: a colour per value, 0xAABBGGRR.
export const MapLayer = Tiles.extend({
  async load(address, signal) {
    const answer = await fetched(address, signal);
    if (!answer) return null;
    const bytes = await answer.arrayBuffer();
    const values = this.options.wide ? new Uint16Array(bytes) : new Uint8Array(bytes);
    this.options.onValues?.(values);
    return values;
  },
  paint(canvas) {
    const size = canvas.width;
    if (!canvas.content) return show(canvas, null);
    const picture = new ImageData(size, size);
    drawn(new Uint32Array(picture.data.buffer), canvas.content, size, this.options.style());
    return show(canvas, picture);
  },
});

// A canvas that only takes finished pictures: one that can be drawn on is copied anew whenever the map moves.
async function show(canvas, picture, how = {}) {
  const turn = canvas.turn = (canvas.turn ?? 0) + 1;
  const bitmap = picture && await createImageBitmap(picture, how);
  if (turn === canvas.turn) canvas.getContext('bitmaprenderer').transferFromImageBitmap(bitmap);
}

function drawn(pixels, values, size, {fill, outline}) {
  const line = size + 2;
  // A class whose outline is not drawn has edges like its inside.
  const rim = outline ? outline.map((colour, value) => colour || fill[value]) : fill;
  for (let y = 0, to = 0, from = line + 1; y < size; y++, from += 2) {
    let left = values[from - 1], value = values[from];
    for (let x = 0; x < size; x++, from++, to++) {
      const right = values[from + 1];
      const inside = value === left && value === right && value === values[from - line] && value === values[from + line];
      pixels[to] = (inside ? fill : rim)[value];
      left = value;
      value = right;
    }
  }
}
