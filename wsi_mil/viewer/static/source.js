// Where slides, maps and tiles come from: the server, or the folder that was exported.

export class ServerSource {
  constructor() {
    this.canSave = true;
  }

  async get(path) {
    const answer = await fetch(path, { credentials: "same-origin" });
    if (!answer.ok) throw new Error(await wordsOf(answer));
    return answer;
  }

  async json(path) {
    return (await this.get(path)).json();
  }

  cases() {
    return this.json("api/cases");
  }

  colours() {
    return this.json("api/colours");
  }

  slide(key) {
    return this.json(`api/slide/${key}`);
  }

  async map(key, model) {
    const base = `api/map/${key}/${encodeURIComponent(model)}`;
    const [told, places] = await Promise.all([
      this.json(base),
      this.get(`${base}/places`).then((answer) => answer.arrayBuffer()),
    ]);
    return { ...told, places: new Int32Array(places) };
  }

  async channel(key, model, number) {
    const answer = await this.get(`api/map/${key}/${encodeURIComponent(model)}/${number}`);
    return new Float32Array(await answer.arrayBuffer());
  }

  tile(key, level, column, row) {
    return `tile/${key}/${level}/${column}_${row}.jpg`;
  }

  crop(key, place) {
    return `api/slide/${key}/crop/${place.join("_")}.jpg`;
  }

  async save(key, what, told) {
    const answer = await fetch(`api/slide/${key}/${what}`, {
      method: "PUT",
      credentials: "same-origin",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(told),
    });
    if (!answer.ok) throw new Error(await wordsOf(answer));
    return answer.json();
  }
}

export class InlinedSource {
  constructor(told) {
    this.told = told;
    this.canSave = false;
    this.waiting = new Map();
  }

  async cases() {
    return this.told.cases;
  }

  async colours() {
    return this.told.colours;
  }

  // A page from disk may not fetch, but it may run a script that lies beside it.
  load(key) {
    if (!this.waiting.has(key)) {
      this.waiting.set(
        key,
        new Promise((resolve, reject) => {
          const script = document.createElement("script");
          script.src = `data/${key}.js`;
          script.onload = () => resolve(this.told.slides[key]);
          script.onerror = () => reject(new Error("This slide is not in the folder."));
          document.head.append(script);
        }),
      );
    }
    return this.waiting.get(key);
  }

  async slide(key) {
    return (await this.load(key)).slide;
  }

  async map(key, model) {
    const map = (await this.load(key)).maps[model];
    return { ...map.told, places: new Int32Array(bytesOf(map.places)) };
  }

  async channel(key, model, number) {
    return new Float32Array(bytesOf((await this.load(key)).maps[model].scores[number]));
  }

  tile(key, level, column, row) {
    return `data:image/webp;base64,${this.told.slides[key].tiles[`${level}/${column}_${row}`]}`;
  }

  crop(key, place) {
    const found = this.told.slides[key]?.crops[place.join("_")];
    return found ? `data:image/webp;base64,${found}` : "";
  }
}

export function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

async function wordsOf(answer) {
  if (answer.status === 401) return "The session has ended: open the address that wsi-mil view printed.";
  try {
    return (await answer.json()).error;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}
