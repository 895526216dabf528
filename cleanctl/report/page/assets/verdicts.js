// A person's verdicts: in this browser's storage as they fall, at the server where the page has one, and in one file.

import { saveFile } from "./elements.js";
import { served } from "./images.js";
import { digest, given } from "./model.js";

export const KINDS = ["keep", "drop", "relabel", "skip"];
const FORMAT = "cleanctl.review";
const VERSION = 1;

export function now() {
  return `${new Date().toISOString().slice(0, 19)}Z`;
}

// A verdict here: {verdict, label, by, at, own, sent}. own: made or loaded in this browser; sent: the server has it.
export class Verdicts {
  constructor(page) {
    Object.assign(this, { page, said: new Map(), listeners: [], failure: "", storing: true, sending: false });
    this.usualBy = ""; // whose the server takes verdicts for that bear no name
    this.prefix = `${FORMAT}/${page.store}/${page.split}/`;
    this.ownWaiting = new Set();
    this.take(page.verdicts, { own: false, sent: true });
    this.restore();
  }

  get(position) {
    return this.said.get(position) ?? null;
  }

  get own() {
    return [...this.said].filter(([, verdict]) => verdict.own);
  }

  get waiting() {
    return served ? this.ownWaiting.size : 0;
  }

  get by() {
    return this.stored("by") ?? "";
  }

  set by(name) {
    this.store("by", name);
  }

  // Sets a row's verdict; returns what was there before, for `undo`.
  put(position, verdict, label = null) {
    const before = this.get(position);
    this.said.set(position, { verdict, label, by: this.by, at: now(), own: true, sent: false });
    this.write(position);
    this.changed(position);
    this.send();
    return before;
  }

  // What was there before `put` is there again. The server takes nothing back: it is told the former verdict again, or
  // that the row was looked at and not decided.
  undo(position, before) {
    if (served) return void this.put(position, before?.verdict ?? "skip", before?.label ?? null);
    if (before) this.said.set(position, before);
    else this.said.delete(position);
    if (before?.own) this.write(position);
    else this.forget(position);
    this.changed(position);
  }

  changed(position) {
    for (const listener of this.listeners) listener(position);
  }

  // One verdict as files and the server have it.
  entry(position) {
    const { verdict, label, at, by } = this.get(position);
    const told = { key: this.page.column.key[position], digest: digest(this.page, position) };
    Object.assign(told, { given: given(this.page, position), verdict, at });
    if (verdict === "relabel") told.label = label;
    if (by) told.by = by;
    return told;
  }

  // The later of two verdicts on a row counts. Returns how many were taken, differed, or fit no row of this page.
  take(entries, flags) {
    const told = { taken: 0, differing: 0, unknown: 0 };
    if (!entries.length) return told;
    this.places ??= new Map(this.page.column.key.map((key, position) => [key, position]));
    for (const entry of entries) {
      const position = this.places.get(entry.key);
      if (position === undefined || !this.fits(entry, position)) {
        told.unknown++;
        continue;
      }
      const { verdict, label = null, by = "", at = "" } = entry;
      const before = this.get(position);
      if (before && (before.verdict !== verdict || (before.label ?? null) !== label)) told.differing++;
      if (before && before.at > at) continue;
      this.said.set(position, { verdict, label, by, at, ...flags });
      told.taken++;
      if (flags.own) this.write(position);
    }
    return told;
  }

  fits(entry, position) {
    const own = digest(this.page, position);
    const same = !entry.digest || !own || entry.digest === own;
    const sensible = KINDS.includes(entry.verdict) && (entry.verdict !== "relabel") === (entry.label == null);
    return same && sensible && (entry.label == null || this.page.classes.includes(entry.label));
  }

  // --- this browser's storage: an item a verdict, so that each costs the same however many there are

  store(name, value) {
    try {
      localStorage.setItem(this.prefix + name, value);
    } catch (error) {
      this.storing = false;
    }
  }

  stored(name) {
    try {
      return localStorage.getItem(this.prefix + name);
    } catch (error) {
      this.storing = false;
      return null;
    }
  }

  write(position) {
    if (!this.get(position).sent) this.ownWaiting.add(position);
    const { sent } = this.get(position);
    this.store(`row/${this.page.column.key[position]}`, JSON.stringify({ ...this.entry(position), sent }));
  }

  forget(position) {
    this.ownWaiting.delete(position);
    try {
      localStorage.removeItem(`${this.prefix}row/${this.page.column.key[position]}`);
    } catch (error) {
      this.storing = false;
    }
  }

  restore() {
    const start = `${this.prefix}row/`;
    let names = [];
    try {
      names = Object.keys(localStorage).filter((name) => name.startsWith(start));
    } catch (error) {
      this.storing = false;
    }
    for (const name of names) {
      const entry = JSON.parse(localStorage.getItem(name));
      this.take([entry], { own: true, sent: Boolean(entry.sent) });
    }
  }

  // --- the server

  async open() {
    if (!served) return;
    try {
      const answer = await fetch("api/verdicts", { cache: "no-store" });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      const told = await answer.json();
      this.usualBy = told.by ?? "";
      this.take(told.verdicts ?? told, { own: false, sent: true });
    } catch (error) {
      this.failure = error.message;
    }
    this.changed(null);
    await this.send();
  }

  // Posts what waits, one after another, in the order in which the verdicts fell; one that is refused waits on, and
  // holds up no other.
  async send() {
    if (!served || this.sending) return;
    this.sending = true;
    this.failure = "";
    const refused = new Set();
    for (let next = this.nextWaiting(refused); next !== undefined; next = this.nextWaiting(refused)) {
      try {
        await this.post(next);
      } catch (error) {
        this.failure = error.message;
        refused.add(next);
        if (error instanceof TypeError) break; // no answer at all: the others would get none either
      }
    }
    this.sending = false;
    this.changed(null);
  }

  nextWaiting(refused) {
    return [...this.ownWaiting].find((position) => !refused.has(position));
  }

  async post(position) {
    const verdict = this.get(position);
    const answer = await fetch("api/verdict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(this.entry(position)),
    });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}: ${(await answer.text()).slice(0, 200)}`);
    if (this.get(position) !== verdict) return; // decided anew meanwhile: that waits still
    verdict.sent = true;
    this.ownWaiting.delete(position);
    this.write(position);
  }

  // --- the file

  save() {
    const { page, by } = this;
    const verdicts = this.own.map(([position]) => this.entry(position));
    verdicts.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
    for (const verdict of verdicts) if (verdict.by === by) delete verdict.by;
    const { store, split, selection } = page;
    const file = { format: FORMAT, version: VERSION, store, split, selection, by, saved: now(), verdicts };
    const name = `verdicts-${split}-${file.saved.replaceAll(":", "")}.json`.replaceAll(/[^\w.-]/g, "_");
    saveFile(name, "application/json", [JSON.stringify(file, null, 1)]);
    return name;
  }

  // Takes the verdicts of a saved file in; a line that says what came of it.
  load(text) {
    let file;
    try {
      file = JSON.parse(text);
    } catch (error) {
      return "This is no file of verdicts: it is not JSON.";
    }
    if (file?.format !== FORMAT || !Array.isArray(file.verdicts)) return "This is no file of verdicts.";
    if (file.version !== VERSION) return `This file has version ${file.version}; this page reads version ${VERSION}.`;
    const { store, split } = this.page;
    if (file.store !== store || file.split !== split) {
      return "Nothing was read: the file is of another dataset or split, or the dataset has changed since.";
    }
    const entries = file.verdicts.map((entry) => ({ by: file.by, at: file.saved, ...entry }));
    const told = this.take(entries, { own: true, sent: false });
    this.changed(null);
    this.send();
    const differing = told.differing ? ` ${told.differing} differ from yours; the later one counts.` : "";
    const unknown = told.unknown ? ` ${told.unknown} fit no image of this page.` : "";
    return `${told.taken} of ${entries.length} verdicts taken.${differing}${unknown}`;
  }
}
